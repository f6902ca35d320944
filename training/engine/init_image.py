"""Starting a student's image part from torchvision's published weights.

Two kinds of files are taken: DeepLabV3-ResNet50 (COCO), as the official students start from
(cmkd-spec G1), and the ImageNet ResNets. Their tensors have the official names without a prefix.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from cmkd_ros.model.student import Student
from cmkd_ros.official import official_key
from cmkd_ros.official_file import OfficialFile, read_official
from cmkd_ros.official_kind import identify

LOG = logging.getLogger('cmkd.train')

_DDN = 'vfe.ffn.ddn.model.'
_LAYER4 = 'layer4.0.conv1.weight'
# What the files have and no student needs, by the beginning of the key.
_LEFT_OUT = {
    'classifier.4.': 'classes of COCO, not depth bins',
    'aux_classifier.': 'auxiliary classes of COCO',
    'fc.': 'classes of ImageNet',
}


@dataclass(frozen=True)
class ImageStart:
    """Key by key, what became of a torchvision file.

    Attributes:
        title: what the file is.
        taken: our keys, by the file's.
        left_out: the file's keys that were not used, with the reason.
        fresh: our keys of the image part that keep their initial values, with the reason.
    """

    title: str
    taken: dict[str, str]
    left_out: dict[str, str]
    fresh: dict[str, str]

    def lines(self) -> list[str]:
        """The whole report, a line a key."""
        return [
            *(f'{theirs} -> {ours}' for theirs, ours in self.taken.items()),
            *(f'{key}: left out, {why}' for key, why in self.left_out.items()),
            *(f'{key}: fresh, {why}' for key, why in self.fresh.items()),
        ]


def start_image_part(student: Student, path: Path) -> ImageStart:
    """Copy what a torchvision file has for the student's image part, and log it key by key.

    Tensors are copied whole or not at all. What may stay as it is: the last convolution of the
    depth head, with an ImageNet file the whole depth head, and layer4 where the student's has
    another width than the file's. Everything else must fit.

    Args:
        student: receives the weights.
        path: `deeplabv3_resnet50_coco-*.pth`, `resnet50-*.pth` or `resnet18-*.pth`.

    Raises:
        FileNotFoundError, ValueError: not such a file, of another network, or with tensors
            missing or of another shape; names them and says what to do.
    """
    file = read_official(path)
    contents = identify(file.shapes)
    if contents is None or contents.kind != 'image':
        found = contents.title if contents else f'{len(file.tensors)} tensors of something else'
        raise ValueError(
            f"{path}: init_image takes torchvision's DeepLabV3-ResNet50 or ResNet weights, found "
            f'{found}'
        )
    start = _plan(student.state_dict(), file, contents.title)
    student.load_state_dict(
        {ours: file.tensors[theirs] for theirs, ours in start.taken.items()}, strict=False
    )
    LOG.info(
        'image part starts from %s (%s): %d tensors taken, %d left out, %d fresh',
        path, start.title, len(start.taken), len(start.left_out), len(start.fresh),
    )  # fmt: skip
    for line in start.lines():
        LOG.info('  %s', line)
    return start


def _plan(own: dict[str, torch.Tensor], file: OfficialFile, title: str) -> ImageStart:
    """Pair our keys with the file's; whatever finds no partner needs a reason."""
    is_deeplab = 'backbone.conv1.weight' in file.tensors
    prefix = _DDN if is_deeplab else f'{_DDN}backbone.'
    if is_deeplab and 'depth_head.aspp.project.conv.weight' not in own:
        raise ValueError(
            f"{file.path}: {title} is for students with its depth head (ASPP); take torchvision's "
            "ImageNet file of this student's ResNet"
        )
    width = _other_layer4(own, file, 'backbone.' if is_deeplab else '')
    start = ImageStart(title, {}, {}, {})
    faults = []
    for ours in own:
        if not ours.startswith(('image_backbone.', 'depth_head.')):
            continue
        reason = _reason_to_stay_fresh(ours, is_deeplab, width)
        theirs = '' if reason else official_key(ours).removeprefix(prefix)
        tensor = file.tensors.get(theirs)
        if reason:
            start.fresh[ours] = reason
        elif tensor is not None and tensor.shape == own[ours].shape:
            start.taken[theirs] = ours
        elif tensor is None and ours.endswith('.num_batches_tracked'):
            start.fresh[ours] = 'files of old versions do not count batches'
        else:
            found = 'nothing' if tensor is None else str(tuple(tensor.shape))
            faults.append(f'{theirs} expected {tuple(own[ours].shape)}, found {found}')
    for theirs in file.tensors:
        reason = next((why for part, why in _LEFT_OUT.items() if theirs.startswith(part)), '')
        if width and theirs.removeprefix('backbone.').startswith('layer4.'):
            reason = width
        if reason:
            start.left_out[theirs] = reason
        elif theirs not in start.taken:
            faults.append(f'{theirs} has no place')
    if faults:
        more = f' and {len(faults) - 3} more' if len(faults) > 3 else ''
        raise ValueError(
            f"{file.path}: {title} does not fit this student's image part: "
            f'{"; ".join(faults[:3])}{more}; take the file of the same ResNet'
        )
    return start


def _other_layer4(own: dict[str, torch.Tensor], file: OfficialFile, prefix: str) -> str:
    """Why layer4 cannot be taken, empty where it can."""
    ours, theirs = own[f'image_backbone.{_LAYER4}'], file.tensors.get(prefix + _LAYER4)
    if theirs is None or len(theirs) == len(ours):
        return ''
    return f'layer4 is {len(ours)} wide in this student and {len(theirs)} in the file'


def _reason_to_stay_fresh(ours: str, is_deeplab: bool, width: str) -> str:
    if width and ours.startswith('image_backbone.layer4.'):
        return width
    if ours.startswith('depth_head.') and not is_deeplab:
        return 'an ImageNet file has no depth head'
    if ours.startswith('depth_head.classifier.'):
        return 'depth bins, not classes of COCO'
    return ''
