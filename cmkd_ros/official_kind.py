"""What a checkpoint of official CMKD, OpenPCDet or torchvision holds, told from names and shapes.

A guess by a few telling tensors, so that messages can say what a file is even where it is
incomplete; whether it fits is decided tensor by tensor at the import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

STUDENT_CONFIGS = ('scd_r50', 'pp_r50', 'ctp_r50')
TEACHER_CONFIGS = ('second', 'centerpoint', 'pointpillar')
IMAGE_NET_HINT = 'start a student from it with `cmkd distill ... init_image=FILE`'

Shapes = Mapping[str, tuple[int, ...]]

_STUDENT_PARTS = ('vfe.ffn.', 'map_to_bev_module.block.', 'domain_adaptation.')
_DETECTION_PARTS = ('backbone_2d.', 'dense_head.')
_COLLAPSE = 'map_to_bev_module.block.conv.weight'
_COLLAPSE_CHANNELS = {128: ('scd_r50', 'pp_r50'), 256: ('ctp_r50',)}


@dataclass(frozen=True)
class Contents:
    """What a checkpoint file seems to hold.

    Attributes:
        kind: 'student' (camera network), 'teacher' (LiDAR network), or 'image' (a torchvision
            network, which can only be the start of a student's image part).
        configs: names for `cmkd import-official --config`; several where networks are the same.
        stage: of a student: 1 (features only) or 2 (detects).
        title: the same in words, to follow 'it holds'.
    """

    kind: Literal['student', 'teacher', 'image']
    configs: tuple[str, ...]
    stage: int | None
    title: str

    @property
    def hint(self) -> str:
        """What to do with such a file."""
        if self.kind == 'image':
            return IMAGE_NET_HINT
        return f'use --config {" or ".join(self.configs)}'


def identify(shapes: Shapes) -> Contents | None:
    """Say what the tensors of these official names and shapes are, None for anything else."""
    if _any_begins(shapes, _STUDENT_PARTS):
        return _student(shapes)
    if _any_begins(shapes, ('backbone_3d.',)):
        config = 'centerpoint' if _any_begins(shapes, ('dense_head.heads_list.',)) else 'second'
        return Contents('teacher', (config,), None, f'the LiDAR teacher {config}')
    if _any_begins(shapes, ('vfe.pfn_layers.',)):
        return Contents('teacher', ('pointpillar',), None, 'the LiDAR teacher pointpillar')
    return _torchvision(shapes)


def _student(shapes: Shapes) -> Contents:
    stage = 2 if _any_begins(shapes, _DETECTION_PARTS) else 1
    configs = _COLLAPSE_CHANNELS.get(shapes.get(_COLLAPSE, (0,))[0], ())
    if not configs:
        configs = ('ctp_r50',) if _any_begins(shapes, ('dense_head.heads_list.',)) else ()
    names = ' or '.join(configs or STUDENT_CONFIGS)
    use = 'detects' if stage == 2 else 'features only, cannot detect'
    return Contents(
        'student',
        configs or STUDENT_CONFIGS,
        stage,
        f'the camera student {names}, stage {stage} ({use})',
    )


def _torchvision(shapes: Shapes) -> Contents | None:
    if 'backbone.conv1.weight' in shapes and 'classifier.0.project.0.weight' in shapes:
        return Contents(
            'image', (), None, "torchvision's DeepLabV3 with a " + _resnet(shapes, True)
        )
    if 'conv1.weight' in shapes and 'layer4.0.conv1.weight' in shapes:
        return Contents('image', (), None, "torchvision's " + _resnet(shapes, False))
    return None


def _resnet(shapes: Shapes, nested: bool) -> str:
    """Name of a ResNet by its blocks."""
    prefix = 'backbone.' if nested else ''
    counts = tuple(
        len({key.split('.')[index] for key in shapes if key.startswith(f'{prefix}layer{n}.')})
        for n, index in ((layer, 2 if nested else 1) for layer in (1, 2, 3, 4))
    )
    bottleneck = f'{prefix}layer1.0.conv3.weight' in shapes
    names: dict[tuple[bool, tuple[int, ...]], str] = {
        (False, (2, 2, 2, 2)): 'ResNet-18', (False, (3, 4, 6, 3)): 'ResNet-34',
        (True, (3, 4, 6, 3)): 'ResNet-50', (True, (3, 4, 23, 3)): 'ResNet-101',
    }  # fmt: skip
    return names.get((bottleneck, counts), 'ResNet')


def _any_begins(shapes: Shapes, prefixes: tuple[str, ...]) -> bool:
    return any(key.startswith(prefixes) for key in shapes)
