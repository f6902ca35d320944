"""The KITTI object benchmark as a data set of frames.

Letters: H W image rows and columns, N points, M labelled boxes. Frames: ref (FLU at the LiDAR),
cam (optical, rectified). Source: cmkd-spec B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from cmkd_ros.kitti_files import KittiCalibration, KittiObjects, read_calibration, read_labels
from cmkd_ros.training.data.frames import Range, crop_to_range
from cmkd_ros.training.data.image_space import (
    Float32,
    inside_image,
    ref_to_image,
    sparse_depth,
)
from cmkd_ros.training.data.kitti_layout import (
    KittiFolder,
    check_frames,
    find_fault,
    raise_faults,
)
from cmkd_ros.training.data.png import read_png_depth, read_png_rgb, read_png_size
from cmkd_ros.training.data.road_plane import read_road_plane
from cmkd_ros.training.data.sample import Sample
from cmkd_ros.training.data.scan import read_scan


class KittiFrames(Dataset[Sample]):
    """Frames of a folder in the layout of the KITTI object benchmark.

    Points are those that the camera sees (spec B): projected inside the image, not behind it.
    Depth targets come from `depth_2/` (uint16 PNG / 256) where that folder exists, otherwise from
    the LiDAR itself: per pixel the nearest point.

    Args:
        root: folder that holds `split_folder`.
        frames: frame ids, e.g. of `read_frame_list(root / 'ImageSets/train.txt')`.
        classes: wanted class names; other labels (`DontCare`, `Van` ...) are dropped.
        split_folder: folder with image_2, calib, velodyne, label_2, depth_2.
        range_m: crop of points and boxes after augmentation (`crop_to_range`), None for none.
        with_image: False gives black pictures of the right size and spares their decoding: for
            teachers, which see none.
        with_points: whether samples carry the scan.
        with_depth: whether samples carry a depth picture.
        with_plane: whether samples carry the road plane of `planes/`.
        labelled: whether label_2 is read; False gives an unlabelled drive.
        cache: keep decoded frames in memory (about 4 MB each, in every worker): for small sets.

    Raises:
        FileNotFoundError: the folder or listed files are missing; the first faults are listed.
        ValueError: no frames, no classes, or files that cannot be right by size or content.
    """

    def __init__(
        self,
        root: str | Path,
        frames: Sequence[str],
        classes: Sequence[str],
        *,
        split_folder: str = 'training',
        range_m: Range | None = None,
        with_image: bool = True,
        with_points: bool = True,
        with_depth: bool = False,
        with_plane: bool = False,
        labelled: bool = True,
        cache: bool = False,
    ) -> None:
        self.frame_ids = tuple(frames)
        self.classes = tuple(classes)
        self.range_m = range_m
        self.labelled = labelled
        self.folder = KittiFolder(Path(root) / split_folder)
        if not self.frame_ids:
            raise ValueError(f'{self.folder.path}: expected frames to read, found an empty list')
        if not self.classes:
            raise ValueError(f'{self.folder.path}: expected class names, found none')
        self._with_image = with_image
        self._with_points = with_points
        self._with_depth = with_depth
        self._with_plane = with_plane
        self._depth_files = with_depth and self.folder.path.joinpath('depth_2').is_dir()
        self._read_scans = with_points or (with_depth and not self._depth_files)
        self._cache: dict[int, Sample] | None = {} if cache else None
        check_frames(
            self.folder,
            self.frame_ids,
            scans=self._read_scans,
            labels=labelled,
            depth=self._depth_files,
        )
        if with_plane:
            planes = (self._plane(frame) for frame in self.frame_ids)
            faults = [f for path in planes if (f := find_fault(read_road_plane, path)) is not None]
            raise_faults(self.folder.path, faults)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample(self, index: int, augment: Callable[[Sample], Sample] | None = None) -> Sample:
        """One frame.

        Args:
            index: position in `frame_ids`.
            augment: changes the frame before the crop to the range, as the official code does.

        Raises:
            FileNotFoundError, ValueError: a file is missing or damaged; the message names it.
        """
        sample = self._whole(index)
        if augment is not None:
            sample = augment(sample)
        return sample if self.range_m is None else crop_to_range(sample, self.range_m)

    def _whole(self, index: int) -> Sample:
        if self._cache is None:
            return self._read(self.frame_ids[index])
        if index not in self._cache:
            self._cache[index] = self._read(self.frame_ids[index])
        return self._cache[index]

    def _read(self, frame: str) -> Sample:
        calibration = read_calibration(self.folder.calib(frame))
        sample = read_camera_frame(
            frame,
            calibration,
            self.folder.image(frame),
            self.folder.scan(frame) if self._read_scans else None,
            with_image=self._with_image,
            with_points=self._with_points,
            with_depth=self._with_depth and not self._depth_files,
        )
        if self._depth_files:
            sample = replace(sample, depth_HW=self._read_depth(frame, sample.image_HW3.shape[:2]))
        if self.labelled:
            path = self.folder.label(frame)
            try:
                boxes_M7, class_ids_M = boxes_of_objects(
                    read_labels(path), self.classes, calibration
                )
            except ValueError as error:
                named = str(error) if str(path) in str(error) else f'{path}: {error}'
                raise ValueError(named) from error
            sample = replace(sample, boxes_M7=boxes_M7, class_ids_M=class_ids_M, labelled=True)
        if self._with_plane:
            sample = replace(sample, road_plane_4=read_road_plane(self._plane(frame)))
        return sample

    def _plane(self, frame: str) -> Path:
        return self.folder.path / 'planes' / f'{frame}.txt'

    def _read_depth(self, frame: str, image_size: tuple[int, ...]) -> Float32:
        depth_HW = read_png_depth(self.folder.depth(frame))
        if depth_HW.shape != image_size:
            raise ValueError(
                f'{self.folder.depth(frame)}: expected the size of the image {image_size}, '
                f'found {depth_HW.shape}'
            )
        return depth_HW


def read_camera_frame(
    frame_id: str,
    calibration: KittiCalibration,
    image_path: Path,
    scan_path: Path | None,
    *,
    with_image: bool,
    with_points: bool,
    with_depth: bool,
) -> Sample:
    """Read an image and what the LiDAR saw within it, as an unlabelled frame.

    Args:
        frame_id: name for the sample.
        calibration: of this frame.
        image_path: PNG.
        scan_path: KITTI scan, None when neither points nor a depth from the LiDAR are wanted.
        with_image: decode the picture; otherwise a black one takes its place.
        with_points: put the points that the camera sees into the sample.
        with_depth: make a sparse depth picture of them.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged; the message names it.
    """
    if with_image:
        image_HW3 = read_png_rgb(image_path)
    else:
        image_HW3 = np.zeros((*read_png_size(image_path), 3), dtype=np.uint8)
    height, width = image_HW3.shape[:2]
    ref_to_cam_44, cam_to_img_34 = float32_calibration(calibration)
    points_N4 = depth_HW = None
    if scan_path is not None:
        points_N4 = read_scan(scan_path)
        pixels_N2, depths_N = ref_to_image(points_N4[:, :3], ref_to_cam_44, cam_to_img_34)
        seen_N = inside_image(pixels_N2, depths_N, (height, width))
        points_N4 = points_N4[seen_N]
        if with_depth:
            depth_HW = sparse_depth(pixels_N2[seen_N], depths_N[seen_N], (height, width))
    return Sample(
        frame_id=frame_id,
        image_HW3=image_HW3,
        cam_to_img_34=cam_to_img_34,
        ref_to_cam_44=ref_to_cam_44,
        points_N4=points_N4 if with_points else None,
        boxes_M7=np.zeros((0, 7), dtype=np.float32),
        class_ids_M=np.zeros(0, dtype=np.int64),
        depth_HW=depth_HW,
        labelled=False,
    )


def float32_calibration(calibration: KittiCalibration) -> tuple[Float32, Float32]:
    """ref_to_cam_44 and cam_to_img_34, multiplied in float32 as the official code does."""
    rectify_44, velo_to_cam_44 = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    rectify_44[:3, :3] = calibration.R0_33
    velo_to_cam_44[:3] = calibration.Tr_velo_to_cam_34
    return rectify_44 @ velo_to_cam_44, calibration.P2_34.astype(np.float32)


def boxes_of_objects(
    objects: KittiObjects, classes: Sequence[str], calibration: KittiCalibration
) -> tuple[Float32, np.ndarray]:
    """Boxes of the wanted classes in ref.

    Returns:
        boxes_M7: float32, in file order; class_ids_M: int64, 1-based index into `classes`.
    """
    ids = {name: number for number, name in enumerate(classes, start=1)}
    chosen = objects.select([i for i, name in enumerate(objects.names) if name in ids])
    boxes = chosen.boxes(calibration.T_cam_ref)
    class_ids_M = np.array([ids[name] for name in chosen.names], dtype=np.int64)
    return boxes.array_N7.astype(np.float32), class_ids_M
