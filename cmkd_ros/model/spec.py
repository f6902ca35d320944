"""Network specification: everything that determines a student's layers, read from YAML or a bundle.

A spec is plain frozen data. Modules never see it: `build_student` (student.py) unpacks it into
explicit constructor arguments. Lengths are metres in the reference frame (FLU) unless named `_px`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

M = TypeVar('M', bound=BaseModel)
Positive = Annotated[int, Field(gt=0)]


class StrictModel(BaseModel):
    """Frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(extra='forbid', frozen=True)


class GridSpec(StrictModel):
    """Voxel grid over the point-cloud range, in the reference frame."""

    range_m: tuple[float, float, float, float, float, float]  # x, y, z minima, then maxima
    voxel_m: tuple[float, float, float]

    @model_validator(mode='after')
    def _whole_cells(self) -> GridSpec:
        for axis, low, high, size in zip(
            'xyz', self.range_m[:3], self.range_m[3:], self.voxel_m, strict=True
        ):
            if not low < high or size <= 0:
                raise ValueError(f'{axis}: empty range {low}..{high} or voxel size {size}')
            cells = (high - low) / size
            if abs(cells - round(cells)) > 1e-3:
                raise ValueError(
                    f'{axis}: range {low}..{high} is {cells:.3f} voxels of {size}, not whole'
                )
        return self

    @property
    def cells_xyz(self) -> tuple[int, int, int]:
        """Number of cells along x, y, z."""
        low, high = self.range_m[:3], self.range_m[3:]
        x, y, z = (round((high[a] - low[a]) / self.voxel_m[a]) for a in range(3))
        return x, y, z


class DepthSpec(StrictModel):
    """Depth bins along the optical axis; one more logit than bins stands for 'beyond'."""

    mode: Literal['LID', 'UD', 'SID'] = 'LID'
    bins: Positive = 120
    min_m: float = 2.0
    max_m: float = 46.8


class ImageSpec(StrictModel):
    """Image network: dilated ResNet to stride 8 of its own input, and the depth head on top."""

    backbone: Literal['resnet10', 'resnet18', 'resnet50']
    downscale: Literal[1, 2] = 1  # average pooling of the normalised image before the backbone
    stem_channels: Positive = 64  # of the first convolution; layers 1 to 3 widen with it
    layer4_channels: Positive = 2048  # channels that layer4 puts out
    depth_head: Literal['aspp', 'plain'] = 'aspp'
    depth_channels: Positive = 256
    reduce_channels: Positive = 64  # feature channels that are lifted
    mean_rgb: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std_rgb: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def stride_px(self) -> int:
        """Pixels of the given image per feature cell."""
        return 8 * self.downscale


class BevSpec(StrictModel):
    """2-D backbone over the BEV map: one entry per block."""

    layers: tuple[Positive, ...]  # 3x3 convolutions after the first of each block
    strides: tuple[Positive, ...]
    filters: tuple[Positive, ...]
    up_strides: tuple[Positive, ...]
    up_filters: tuple[Positive, ...]

    @model_validator(mode='after')
    def _same_lengths(self) -> BevSpec:
        lengths = {len(value) for _, value in self}
        if len(lengths) != 1:
            raise ValueError(f'the five lists must have one length, found {sorted(lengths)}')
        return self


class AnchorSpec(StrictModel):
    """Anchor of one class: size (l, w, h), height of its bottom, IoUs for target assignment."""

    size_lwh: tuple[float, float, float]
    bottom_z: float
    matched_iou: float
    unmatched_iou: float


class AnchorHeadSpec(StrictModel):
    """Single-stage anchor head; anchors in class order, every class with all rotations."""

    kind: Literal['anchor'] = 'anchor'
    anchors: tuple[AnchorSpec, ...]
    rotations_rad: tuple[float, ...] = (0.0, 1.57)  # quirk kept: 1.57, not pi/2
    direction_offset_rad: float = 0.78539


class CenterHeadSpec(StrictModel):
    """Centre head (CenterPoint): heat map and regression maps on the upsampled BEV map."""

    kind: Literal['center'] = 'center'
    shared_channels: Positive = 64
    limit_range_m: tuple[float, float, float, float, float, float] = (0, -40, -3, 70.4, 40, 1)
    max_objects: Positive = 500
    gaussian_overlap: float = 0.1
    min_radius: Positive = 2


HeadSpec = Annotated[AnchorHeadSpec | CenterHeadSpec, Field(discriminator='kind')]


class PostSpec(StrictModel):
    """Post-processing: score threshold, then class-agnostic rotated-BEV NMS."""

    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    nms_iou: Annotated[float, Field(ge=0, le=1)] = 0.01
    nms_max_in: Positive = 4096
    nms_max_out: Positive = 500


class NetworkSpec(StrictModel):
    """The student network, whole. `config/students/*.yaml` hold the named ones."""

    name: str
    classes: tuple[str, ...] = ('Car', 'Pedestrian', 'Cyclist')
    grid: GridSpec
    depth: DepthSpec = DepthSpec()
    image: ImageSpec
    bev_channels: Positive  # after collapse and adaptation: the distilled feature
    adaptation_blocks: Annotated[int, Field(ge=0)] = 4
    bev: BevSpec
    head: HeadSpec
    post: PostSpec = PostSpec()

    @model_validator(mode='after')
    def _anchors_match_classes(self) -> NetworkSpec:
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError(f'classes must be named once each, found {self.classes}')
        if isinstance(self.head, AnchorHeadSpec) and len(self.head.anchors) != len(self.classes):
            raise ValueError(
                f'{len(self.classes)} classes but {len(self.head.anchors)} anchors in the head'
            )
        return self


def parse_model(model: type[M], data: Any, source: str) -> M:
    """Validate `data` as `model`.

    Raises:
        ValueError: one sentence naming the source, every offending key, its value and the rule.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [
            f'{".".join(map(str, e["loc"])) or "(top level)"} = {_short(e.get("input"))}: '
            f'{"unknown key" if e["type"] == "extra_forbidden" else e["msg"]}'
            for e in error.errors()
        ]
        raise ValueError(f'{source}: {"; ".join(faults)}') from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def config_folder() -> Path:
    """The folder `config/` of this package, in a checkout or installed by colcon or pip.

    Raises:
        FileNotFoundError: when none of the known places has it.
    """
    package = Path(__file__).resolve().parents[1]
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    places = [package.parent / 'config']
    places += [Path(p) / 'share' / 'cmkd_ros' / 'config' for p in prefixes]
    # pip installs data files below the environment's prefix: lib/pythonX.Y/site-packages -> prefix
    places += [parent / 'share' / 'cmkd_ros' / 'config' for parent in package.parents[:5]]
    for place in places:
        if (place / 'students').is_dir():
            return place
    raise FileNotFoundError(f'config/students not found in {", ".join(map(str, places))}')


def load_spec(name_or_path: str | Path) -> NetworkSpec:
    """Read a network spec from a YAML file, or by name from `config/students/`.

    Args:
        name_or_path: a path that ends in .yaml, or a name such as 'r18', 'scd_r50', 'ctp_r50'.

    Raises:
        FileNotFoundError: no such file or name; the message lists the known names.
        ValueError: unknown key, wrong type or impossible value; names file, key, value and rule.
    """
    return read_spec(NetworkSpec, 'student', name_or_path)


def read_spec(model: type[M], kind: str, name_or_path: str | Path) -> M:
    """Read a spec of type `model` from a YAML file, or by name from `config/<kind>s/`.

    Raises: as `load_spec`.
    """
    path = Path(name_or_path)
    if path.suffix != '.yaml':
        folder = config_folder() / f'{kind}s'
        path = folder / f'{name_or_path}.yaml'
        if not path.is_file():
            known = ', '.join(sorted(p.stem for p in folder.glob('*.yaml')))
            raise FileNotFoundError(f"no {kind} named '{name_or_path}'; known: {known}")
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such {kind} spec')
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: not valid YAML: {error}') from None
    return parse_model(model, data, str(path))
