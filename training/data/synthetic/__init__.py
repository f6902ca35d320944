"""Synthetic drives: streets, a camera, a LiDAR and labels, ray-cast from one scene."""

from cmkd_ros.training.data.synthetic.drive import generate_drive, render_frame
from cmkd_ros.training.data.synthetic.rig_file import load_rig
from cmkd_ros.training.data.synthetic.settings import DriveSettings, Rig

__all__ = ['DriveSettings', 'Rig', 'generate_drive', 'load_rig', 'render_frame']
