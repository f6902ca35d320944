"""Objects cut out of labelled scans, to be pasted into others while a teacher trains.

Letters: N points of a scan, M its labelled boxes, K objects of the database, P all their points,
S objects drawn for one frame. Frame: ref. Source: cmkd-spec A (teachers: GT sampling).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.geometry.overlap import rotated_intersection_bev
from cmkd_ros.kitti_files import KittiObjects, read_calibration, read_labels
from cmkd_ros.training.data.kitti import KittiFrames, boxes_of_objects
from cmkd_ros.training.data.road_plane import stand_on_plane
from cmkd_ros.training.data.sample import Sample
from cmkd_ros.training.data.scan import check_scan_size, read_scan

LOG = logging.getLogger('cmkd.data')
_FORMAT = 'cmkd ground-truth database 1'
# KITTI's easy, moderate, hard: smallest height in the image, largest occlusion and truncation.
_LIMITS_33 = np.array([[40, 0, 0.15], [25, 1, 0.3], [25, 2, 0.5]])


@dataclass(frozen=True)
class GroundTruthDatabase:
    """Objects of a labelled data set with the points inside them.

    Attributes:
        boxes_K7: float32, ref frame of their own scan.
        class_ids_K: int64, 1-based.
        ends_K: int64, where the points of each object end in points_P4.
        points_P4: float32 x, y, z (ref, not moved) and intensity.
    """

    boxes_K7: NDArray[np.float32]
    class_ids_K: NDArray[np.int64]
    ends_K: NDArray[np.int64]
    points_P4: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes_K7)

    def points_of(self, index: int) -> NDArray[np.float32]:
        """(n, 4) points inside one object."""
        return self.points_P4[self.ends_K[index - 1] if index else 0 : self.ends_K[index]]


@dataclass(frozen=True)
class PasteObjects:
    """Paste objects of a database into a frame: they must not touch others or each other.

    Points of the frame inside a pasted box give way. Objects keep the place and turn that they had
    in their own frame, and the height, unless the frame has a road plane, on which they then stand.
    Only for training without images, as `TeacherAugmentation`, and before it.

    Attributes:
        database: where objects come from.
        wanted: class id -> how many objects to try.
        fill_up: count the objects that the frame has towards `wanted` (official
            LIMIT_WHOLE_SCENE), instead of adding as many whatever it has.
    """

    database: GroundTruthDatabase
    wanted: Mapping[int, int]
    fill_up: bool = False

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if sample.points_N4 is None:
            raise ValueError(f'frame {sample.frame_id}: pasting objects needs a scan, found none')
        boxes_M7, chosen = sample.boxes_M7, []
        for class_id, number in self.wanted.items():
            number -= int((sample.class_ids_M == class_id).sum()) if self.fill_up else 0
            candidates = np.flatnonzero(self.database.class_ids_K == class_id)
            number = min(max(number, 0), len(candidates))
            drawn_S = generator.choice(candidates, number, replace=False)
            drawn_S = drawn_S[_free_places(self.database.boxes_K7[drawn_S], boxes_M7)]
            chosen += drawn_S.tolist()
            boxes_M7 = np.concatenate([boxes_M7, self.database.boxes_K7[drawn_S]])
        if not chosen:
            return sample
        drawn_S7, pasted = self._placed(chosen, sample)
        covered_SN = points_in_boxes(sample.points_N4[:, :3], drawn_S7)
        return replace(
            sample,
            points_N4=np.concatenate([*pasted, sample.points_N4[~covered_SN.any(axis=0)]]),
            boxes_M7=np.concatenate([sample.boxes_M7, drawn_S7]),
            class_ids_M=np.concatenate([sample.class_ids_M, self.database.class_ids_K[chosen]]),
            road_plane_4=None,  # what comes next may turn the frame
        )

    def _placed(
        self, chosen: Sequence[int], sample: Sample
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Boxes and points of the chosen objects, on the frame's road where that is known."""
        boxes_S7 = self.database.boxes_K7[chosen]
        clouds = [self.database.points_of(index) for index in chosen]
        if sample.road_plane_4 is None:
            return boxes_S7, clouds
        lift_S = stand_on_plane(boxes_S7, sample.road_plane_4, sample.ref_to_cam_44)
        boxes_S7[:, 2] += lift_S
        up_4 = np.array([0, 0, 1, 0], dtype=np.float32)
        return boxes_S7, [cloud + up_4 * lift for cloud, lift in zip(clouds, lift_S, strict=True)]


def open_database(path: Path, frames: KittiFrames, min_points: int = 5) -> GroundTruthDatabase:
    """Load the database of these frames from a file, or cut it out and write that file.

    Args:
        path: a safetensors file; made anew when it is absent, damaged, or of other frames, classes,
            labels, calibrations or sizes of scans.
        frames: labelled frames; all points of a scan count, whether the camera sees them or not.
        min_points: objects with fewer points are left out, as are those that are too small,
            hidden or cut off to count in KITTI's hardest difficulty.

    Raises:
        ValueError: the frames are unlabelled, or a file of them is damaged.
    """
    if not frames.labelled:
        raise ValueError(f'{frames.folder.path}: a database of objects needs labelled frames')
    source = _source_digest(frames, min_points)
    if path.is_file():
        try:
            return _load(path, source)
        except (ValueError, SafetensorError) as error:
            LOG.warning('%s is made anew: %s', path, error)
    LOG.info('cutting objects out of %d frames, kept in %s', len(frames), path)
    database = _cut_out(frames, min_points)
    tensors = {field.name: getattr(database, field.name) for field in fields(database)}
    metadata = {'format': _FORMAT, 'source': source, 'sha256': _content_digest(database)}
    write_bytes_atomically(path, save(tensors, metadata))
    return database


def join_databases(databases: Sequence[GroundTruthDatabase]) -> GroundTruthDatabase:
    """One database of all objects of several, in order."""
    starts = np.cumsum([0, *(len(database.points_P4) for database in databases[:-1])])
    return GroundTruthDatabase(
        boxes_K7=np.concatenate([database.boxes_K7 for database in databases]),
        class_ids_K=np.concatenate([database.class_ids_K for database in databases]),
        ends_K=np.concatenate(
            [database.ends_K + start for database, start in zip(databases, starts, strict=True)]
        ),
        points_P4=np.concatenate([database.points_P4 for database in databases]),
    )


def points_in_boxes(
    points_N3: NDArray[np.float32], boxes_M7: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which points lie inside which boxes, as an (M, N) mask; both in ref."""
    inside_MN = np.zeros((len(boxes_M7), len(points_N3)), dtype=bool)
    for row_N, (x, y, z, l, w, h, yaw) in zip(inside_MN, boxes_M7, strict=True):
        # Most points are far away: a square around the box spares them the rotation.
        reach = np.hypot(l, w) / 2
        offsets_N3 = points_N3 - np.array([x, y, z], dtype=np.float32)
        near = np.flatnonzero((np.abs(offsets_N3[:, :2]) <= reach).all(axis=1))
        dx, dy, dz = offsets_N3[near].T
        along, across = dx * np.cos(yaw) + dy * np.sin(yaw), dy * np.cos(yaw) - dx * np.sin(yaw)
        row_N[near] = (np.abs(along) <= l / 2) & (np.abs(across) <= w / 2) & (np.abs(dz) <= h / 2)
    return inside_MN


def _free_places(
    boxes_S7: NDArray[np.float32], occupied_M7: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Mask (S,) of boxes that touch neither occupied ones nor each other (both of a pair go)."""
    drawn, others = torch.from_numpy(boxes_S7), torch.from_numpy(occupied_M7)
    among_SS = rotated_intersection_bev(drawn, drawn).fill_diagonal_(0)
    shared = torch.cat([among_SS, rotated_intersection_bev(drawn, others)], dim=1)
    return (shared <= 0).all(dim=1).numpy()


def _cut_out(frames: KittiFrames, min_points: int) -> GroundTruthDatabase:
    boxes: list[NDArray[np.float32]] = []
    class_ids: list[int] = []
    clouds: list[NDArray[np.float32]] = [np.zeros((0, 4), dtype=np.float32)]
    for frame in frames.frame_ids:
        objects = read_labels(frames.folder.label(frame))
        objects = objects.select(_counted(objects))
        calibration = read_calibration(frames.folder.calib(frame))
        boxes_M7, class_ids_M = boxes_of_objects(objects, frames.classes, calibration)
        points_N4 = read_scan(frames.folder.scan(frame))
        inside_MN = points_in_boxes(points_N4[:, :3], boxes_M7)
        for box_7, class_id, inside_N in zip(boxes_M7, class_ids_M, inside_MN, strict=True):
            if inside_N.sum() >= min_points:
                boxes.append(box_7)
                class_ids.append(int(class_id))
                clouds.append(points_N4[inside_N])
    return GroundTruthDatabase(
        boxes_K7=np.array(boxes, dtype=np.float32).reshape(-1, 7),
        class_ids_K=np.array(class_ids, dtype=np.int64),
        ends_K=np.cumsum([len(cloud) for cloud in clouds[1:]], dtype=np.int64),
        points_P4=np.concatenate(clouds),
    )


def _counted(objects: KittiObjects) -> NDArray[np.bool_]:
    heights_N = objects.boxes_px_N4[:, 3] - objects.boxes_px_N4[:, 1] + 1
    counted_N3 = (
        (heights_N[:, None] >= _LIMITS_33[:, 0])
        & (objects.occluded_N[:, None] <= _LIMITS_33[:, 1])
        & (objects.truncated_N[:, None] <= _LIMITS_33[:, 2])
    )
    return np.any(counted_N3, axis=1)


def _source_digest(frames: KittiFrames, min_points: int) -> str:
    digest = hashlib.sha256(f'{frames.classes} {min_points}'.encode())
    for frame in frames.frame_ids:
        points = check_scan_size(frames.folder.scan(frame))
        digest.update(f'\n{frame} {points}\n'.encode())
        digest.update(frames.folder.label(frame).read_bytes())
        digest.update(frames.folder.calib(frame).read_bytes())
    return digest.hexdigest()


def _content_digest(database: GroundTruthDatabase) -> str:
    digest = hashlib.sha256()
    for field in fields(database):
        array = getattr(database, field.name)
        digest.update(f'{field.name} {array.dtype} {array.shape}\n'.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _load(path: Path, source: str) -> GroundTruthDatabase:
    with safe_open(path, framework='numpy') as file:
        metadata = file.metadata() or {}
        if metadata.get('format') != _FORMAT or metadata.get('source') != source:
            raise ValueError('it holds the objects of other frames')
        names = [field.name for field in fields(GroundTruthDatabase)]
        if sorted(file.keys()) != sorted(names):
            raise ValueError(f'expected the tensors {names}, found {sorted(file.keys())}')
        database = GroundTruthDatabase(**{name: file.get_tensor(name) for name in names})
    if _content_digest(database) != metadata.get('sha256'):
        raise ValueError('its checksum does not match its content')
    return database
