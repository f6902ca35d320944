"""What `cmkd extract-bag` takes from recordings, and how it reads them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import numpy as np

from cmkd_ros.camera_info import Choice
from cmkd_ros.training.data.extract_pose import PoseOptions
from cmkd_ros.training.data.extract_topics import TopicChoice

_LEAST_WIDTH = 64


@dataclass(frozen=True)
class ExtractOptions:
    """Settings of an extraction.

    Attributes:
        topics: names; empty ones are found by type.
        pose: how the reference frame is found.
        max_gap_s: between the stamps of a scan and its image.
        every: keep every n-th pair.
        rate_hz: keep at most so many pairs a second; 0 for no limit.
        least_change: leave out an image that differs from the last one kept by less than so many
            grey levels on average; 0 keeps all.
        rectified, use_projection_offset: as the node's parameters.
        width: of the images written, pixels, their height in proportion; 0 keeps their size.
        intensity_full: the sensor's number for full brightness; None finds it.
        dataset: name of the robot's recordings, by which leaks are found.

    Raises:
        ValueError: a number or name that is impossible.
    """

    topics: TopicChoice = field(default_factory=TopicChoice)
    pose: PoseOptions = field(default_factory=PoseOptions)
    max_gap_s: float = 0.05
    every: int = 1
    rate_hz: float = 0.0
    least_change: float = 0.0
    rectified: Choice = 'auto'
    use_projection_offset: Choice = 'auto'
    width: int = 0
    intensity_full: float | None = None
    dataset: str = 'recordings'

    def __post_init__(self) -> None:
        for name, value in (
            ('max-gap', self.max_gap_s),
            ('rate', self.rate_hz),
            ('min-change', self.least_change),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f'--{name}: expected 0 or more, found {value:g}')
        if self.every < 1:
            raise ValueError(f'--every: expected 1 or more, found {self.every}')
        if self.width and self.width < _LEAST_WIDTH:
            raise ValueError(f'--width: expected {_LEAST_WIDTH} or more, found {self.width}')
        full = self.intensity_full
        if full is not None and not (np.isfinite(full) and full > 0):
            raise ValueError(f'--intensity-max: expected a positive number, found {full:g}')
        if len(self.dataset.splitlines()) != 1 or '/' in self.dataset or not self.dataset.strip():
            raise ValueError(f'--name: expected one line without /, found {self.dataset!r}')


def options_from_arguments(arguments: argparse.Namespace) -> ExtractOptions:
    """The options as the command line has them (`cmkd extract-bag --help`).

    Raises:
        ValueError: a number or name that is impossible.
    """
    pose = PoseOptions(
        reference_frame=arguments.reference_frame,
        lidar_height_m=arguments.lidar_height,
        base_frame=arguments.base_frame,
        base_height_m=arguments.base_height,
        camera_pose=tuple(arguments.camera_pose) if arguments.camera_pose else None,
    )
    return ExtractOptions(
        topics=TopicChoice(arguments.image, arguments.camera_info, arguments.points),
        pose=pose,
        max_gap_s=arguments.max_gap / 1e3,
        every=arguments.every,
        rate_hz=arguments.rate,
        least_change=arguments.min_change,
        rectified=arguments.rectified,
        use_projection_offset=arguments.use_projection_offset,
        width=arguments.width,
        intensity_full=arguments.intensity_max,
        dataset=arguments.name,
    )
