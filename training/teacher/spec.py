"""Teacher specification: everything that determines a LiDAR teacher's layers, read from YAML.

Plain frozen data, like the student's (`cmkd_ros.model.spec`), whose parts it shares: BEV backbone,
head and post-processing are the same blocks in both. Lengths are metres in the reference frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cmkd_ros.model.spec import (
    AnchorHeadSpec,
    BevSpec,
    GridSpec,
    HeadSpec,
    Positive,
    PostSpec,
    StrictModel,
    read_spec,
)
from cmkd_ros.training.teacher.sparse_backbone import folded_shape


class PillarsSpec(StrictModel):
    """PointPillars encoder: one feature per pillar, then convolutions on the scattered map."""

    kind: Literal['pillars'] = 'pillars'
    channels: Positive  # of the pillar features and of every convolution
    conv_strides: tuple[Positive, ...]  # one 3x3 convolution per entry

    def bev_shape(self, cells_xyz: tuple[int, int, int]) -> tuple[int, int, int]:
        """(channels, rows, columns) of the BEV map that it makes of so many voxels."""
        x, y, _ = cells_xyz
        for stride in self.conv_strides:
            x, y = -(-x // stride), -(-y // stride)
        return self.channels, y, x


class SparseSpec(StrictModel):
    """Sparse 3-D convolutions on voxels (SECOND, CenterPoint), folded to a BEV map."""

    kind: Literal['sparse'] = 'sparse'
    widths: tuple[Positive, Positive, Positive, Positive]  # channels of the four stages

    def bev_shape(self, cells_xyz: tuple[int, int, int]) -> tuple[int, int, int]:
        """(channels, rows, columns) of the BEV map that it makes of so many voxels."""
        return folded_shape(cells_xyz, self.widths[-1])


EncoderSpec = Annotated[PillarsSpec | SparseSpec, Field(discriminator='kind')]


class TeacherSpec(StrictModel):
    """A LiDAR teacher, whole. `config/teachers/*.yaml` hold the named ones."""

    name: str
    classes: tuple[str, ...] = ('Car', 'Pedestrian', 'Cyclist')
    grid: GridSpec  # of the LiDAR voxels (not of the BEV map)
    max_points_per_voxel: Positive
    max_voxels_train: Positive
    max_voxels_test: Positive
    encoder: EncoderSpec
    bev: BevSpec
    head: HeadSpec
    post: PostSpec = PostSpec()

    @model_validator(mode='after')
    def _consistent(self) -> TeacherSpec:
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError(f'classes must be named once each, found {self.classes}')
        if isinstance(self.head, AnchorHeadSpec) and len(self.head.anchors) != len(self.classes):
            raise ValueError(
                f'{len(self.classes)} classes but {len(self.head.anchors)} anchors in the head'
            )
        if self.encoder.kind == 'pillars' and self.grid.cells_xyz[2] != 1:
            raise ValueError(
                f'a pillar spans the whole height: expected 1 voxel along z, '
                f'found {self.grid.cells_xyz[2]}'
            )
        if min(self.bev_shape) < 1:
            raise ValueError(
                f'{self.grid.cells_xyz} voxels (x, y, z) are too few: nothing is left after the '
                'strides of the encoder'
            )
        return self

    @property
    def bev_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the map that students learn from."""
        return self.encoder.bev_shape(self.grid.cells_xyz)


def load_teacher_spec(name_or_path: str | Path) -> TeacherSpec:
    """Read a teacher spec from a YAML file, or by name from `config/teachers/`.

    Args:
        name_or_path: a path that ends in .yaml, or a name such as 'pointpillars_r18'.

    Raises:
        FileNotFoundError: no such file or name; the message lists the known names.
        ValueError: unknown key, wrong type or impossible value; names file, key, value and rule.
    """
    return read_spec(TeacherSpec, 'teacher', name_or_path)
