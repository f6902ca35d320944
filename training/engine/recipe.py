"""Run recipes: YAML files that say everything a training run does, read once, at the edge.

A recipe may name a `base` (another YAML file beside it, or a list of them, later ones winning);
mappings are merged key by key. Command line overrides `a.b=value` come last, their values read as
YAML. Unknown keys are errors. Files named _*.yaml are parts of others, not recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from cmkd_ros.model.spec import StrictModel, parse_model

RECIPES = Path(__file__).resolve().parents[1] / 'recipes'
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class SourceSpec(StrictModel):
    """One set of frames in the layout of KITTI's object benchmark, or of its raw recordings."""

    layout: Literal['object', 'raw'] = 'object'
    root: Path  # object: holds `folder`/image_2, velodyne, calib, label_2; raw: the date folders
    frames: Path | None = None  # list file, relative to root; none: every image in the folder
    folder: str = 'training'
    labelled: bool = True  # False: labels are not read even where they exist

    @model_validator(mode='after')
    def _raw_has_no_labels(self) -> SourceSpec:
        if self.layout == 'raw' and (self.labelled or self.frames is None):
            raise ValueError('raw recordings need a list of frames or drives, and labelled: false')
        return self


class DataSpec(StrictModel):
    """What is read, and how it becomes batches."""

    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    # Kept for evaluation, and refused as sources; none: ImageSets/val.txt in each source's root.
    held_out: tuple[SourceSpec, ...] | None = None
    canvas_hw: tuple[Positive, Positive] | None = None  # none: the batch's largest image
    workers: Annotated[int, Field(ge=0)] = 0
    keep_in_memory: bool = False


class OptimiserSpec(StrictModel):
    """AdamW under a one-cycle schedule; defaults are the official student's."""

    epochs: Positive | None = None  # this or `steps`
    steps: Positive | None = None  # optimiser steps, however many passes over the frames they are
    batch_size: Positive = 4
    lr_max: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Weight = 0.01
    clip_norm: Annotated[float, Field(gt=0)] = 10.0
    warm_up: Fraction = 0.4  # part of the run before the highest rate
    div_factor: Annotated[float, Field(gt=0)] = 10.0
    final_div_factor: Annotated[float, Field(gt=0)] = 1000.0
    momentum: tuple[Fraction, Fraction] = (0.85, 0.95)  # AdamW's beta1, cycled
    beta2: Fraction = 0.999
    precision: Literal['auto', 'fp32', 'bf16'] = 'fp32'  # auto: bf16 where the device has it
    checkpoint_activations: bool = False  # less than half the memory for a quarter more time

    @model_validator(mode='after')
    def _one_length(self) -> OptimiserSpec:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f'expected one of epochs and steps, found {self.epochs} and {self.steps}; '
                'null switches one off'
            )
        return self


class RunRecipe(StrictModel):
    """What every run has."""

    name: str
    seed: int = 0
    data: DataSpec
    optimiser: OptimiserSpec
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0  # within an epoch; 0: at every step


class TeacherAugment(StrictModel):
    """Random changes of points and boxes while a teacher learns; 0 or empty switches one off."""

    flip: Fraction = 0.5
    rotation_rad: Annotated[float, Field(ge=0)] = 0.785
    scale: tuple[float, float] = (0.95, 1.05)
    shuffle: bool = True
    paste: dict[str, Annotated[int, Field(ge=0)]] = {}  # class -> objects of other frames to add
    paste_min_points: Annotated[int, Field(ge=1)] = 5
    paste_on_planes: bool = False  # pasted objects stand on the road of `planes/`, as officially
    paste_fill_up: bool = False  # objects that the frame has count towards `paste`


class SupervisedWeights(StrictModel):
    """Weights of the detection loss on labels, of a teacher or of a student."""

    cls: Weight = 1.0  # of a centre head: of the heat maps
    box: Weight = 2.0
    dir: Weight = 0.2  # a centre head has no such term


class TeacherRecipe(RunRecipe):
    """Supervised training of a LiDAR teacher."""

    task: Literal['teacher']
    teacher: str  # name in config/teachers, or a YAML file
    # Bundle to start from: a teacher wholly; of a student its BEV backbone and head.
    init: Path | None = None
    augment: TeacherAugment = TeacherAugment()
    weights: SupervisedWeights = SupervisedWeights()


class DistillWeights(StrictModel):
    """Weights of the distillation losses; defaults are the official SECOND student's."""

    bev: Weight = 32.0
    depth: Weight = 0.5
    cls: Weight = 2.0  # of a centre head: of the heat maps
    box: Weight = 2.0
    dir: Weight = 0.4  # a centre head has no such term
    label_cls: Weight = 1.0  # these two: a centre head on labelled frames only
    label_box: Weight = 2.0


class DistillRecipe(RunRecipe):
    """Distillation of a teacher into a camera student; stage 1 features, stage 2 responses too.

    Without a teacher the student learns from labels, and from the LiDAR's depth if wanted.
    """

    task: Literal['distill']
    stage: Literal[1, 2]
    student: str  # name in config/students, or a YAML file
    teacher: Path | None = None  # teacher bundle; none: only `labels` and the depth teach
    teacher_spec: str | None = None  # of config/teachers: its range and voxels, if not its own
    init_image: Path | None = None  # torchvision file that the image part of stage 1 starts from
    init: Path | None = None  # stage-1 student bundle whose weights stage 2 starts from
    start_from_teacher: bool = True  # stage 2 takes over the teacher's BEV backbone and head
    flip: Fraction = 0.5
    redraw_empty: bool = False  # labelled frame without a box in range: take another one
    weights: DistillWeights = DistillWeights()
    # Detection loss of an anchor head on labelled frames, as teachers have it; none: as officially.
    labels: SupervisedWeights | None = None

    @model_validator(mode='after')
    def _stage_fits_init(self) -> DistillRecipe:
        if self.stage == 1 and self.init is not None:
            raise ValueError('init is for stage 2; stage 1 starts from fresh weights or init_image')
        if self.stage == 2 and self.init_image is not None:
            raise ValueError('init_image is for stage 1; stage 2 starts from init')
        return self

    @model_validator(mode='after')
    def _something_teaches(self) -> DistillRecipe:
        if self.labels is not None and self.stage == 1:
            raise ValueError('labels are for stage 2; in stage 1 the student has no head')
        if self.teacher is None and (self.stage == 1 or self.weights.bev):
            raise ValueError('without a teacher expected stage: 2 and weights.bev: 0')
        if self.teacher is None and not all(source.labelled for source in self.data.sources):
            raise ValueError('without a teacher every source must be labelled')
        return self


def load_recipe(name_or_path: str | Path, overrides: tuple[str, ...] = ()) -> RunRecipe:
    """Read a recipe by path, or by name from `training/recipes/`.

    Args:
        name_or_path: 'x.yaml', or the name of a recipe that comes with the package.
        overrides: 'a.b=value' each; list items by number ('data.sources.0.root=/kitti').

    Raises:
        FileNotFoundError: no such recipe; lists those that come with the package.
        ValueError: names file, key, value and rule.
    """
    path, data = read_recipe(name_or_path, overrides)
    kinds: dict[str, type[RunRecipe]] = {'teacher': TeacherRecipe, 'distill': DistillRecipe}
    kind = kinds.get(str(data.get('task')))
    if kind is None:
        raise ValueError(
            f'{path}: task = {data.get("task")!r}: expected teacher or distill '
            '(`cmkd ladder` takes a ladder)'
        )
    return parse_model(kind, data, str(path))


def read_recipe(
    name_or_path: str | Path, overrides: tuple[str, ...] = ()
) -> tuple[Path, dict[str, Any]]:
    """The file of a recipe, and its keys with bases and overrides, not yet validated.

    Arguments, errors: as `load_recipe`.
    """
    path = Path(name_or_path)
    if path.suffix != '.yaml':
        path = RECIPES / f'{name_or_path}.yaml'
    data = _unshared(_read_with_base(path))
    for override in overrides:
        _apply_override(data, override)
    return path, data


def _read_with_base(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = ', '.join(sorted(p.stem for p in RECIPES.glob('[!_]*.yaml')))
        raise FileNotFoundError(f'{path}: no such recipe; those of the package: {known}')
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: not valid YAML: {error}') from None
    if not isinstance(data, dict):
        raise ValueError(f'{path}: a recipe is a mapping of keys to values')
    bases = data.pop('base', [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge_keys(merged, _read_with_base(path.parent / base))
    return merge_keys(merged, data)


def _unshared(node: Any) -> Any:
    """A copy in which no two places are one object, as the aliases of YAML (`*name`) are.

    Otherwise an override of one place would change the others too.
    """
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def merge_keys(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Both mappings in one, key by key; where both have a value, `over`'s."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_keys(merged[key], value) if both else value
    return merged


def _apply_override(data: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition('=')
    if not separator or not dotted:
        raise ValueError(f"override '{override}': expected key=value, such as seed=1")
    *parents, last = dotted.split('.')
    node: Any = data
    try:
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        value = yaml.safe_load(text)
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except (AttributeError, IndexError, TypeError, ValueError, yaml.YAMLError):
        raise ValueError(f"override '{override}': the recipe has no place {dotted}") from None
