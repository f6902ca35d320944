"""The fast form of a student for inference, made from its plain modules.

The plain modules define the network and stay the oracle. The fast form is a tree of the same
shape in which every module that has a faster equivalent is replaced by it; all others run the very
code of the plain network on replaced children.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from cmkd_ros.model.bev import BevBackbone, Collapse, SelfCalibratedBlock, UpConvBnRelu
from cmkd_ros.model.conv_bn import ConvBn, ConvBnRelu
from cmkd_ros.model.cpu_features import cpu_has_tiles
from cmkd_ros.model.depth_net import Aspp
from cmkd_ros.model.fast_aspp import FastAspp, RowClippedConv, project_without_pooled
from cmkd_ros.model.fast_blocks import (
    FastBevBackbone,
    FastResidual,
    FastSelfCalibratedBlock,
    FastUpConv,
)
from cmkd_ros.model.fast_conv import FoldedConv, PackedConv, conv_kernel
from cmkd_ros.model.fast_lift import FastCollapse, FastLift
from cmkd_ros.model.fast_winograd import WinogradConv, winograd_pays
from cmkd_ros.model.image_backbone import BasicBlock, Bottleneck, ImageBackbone
from cmkd_ros.model.lift import Lift
from cmkd_ros.model.student import Student

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


def fast_form(
    student: Student,
    precision: str = 'fp32',
    packed: bool = True,
    row_products: bool | None = None,
) -> Student:
    """A student that computes the same faster; for CPUs, without gradients.

    In fp32 its maps are within 1e-5 (relative root mean square) of the plain student's. It shares
    nothing that training changes: later steps of the plain student do not reach it.

    Args:
        student: in eval mode; not changed.
        precision: 'fp32' or 'bf16'.
        packed: False keeps to public operators, as where packed convolutions do not work.
        row_products: dilated convolutions of the depth head as products over image rows; None:
            where the CPU has matrix tiles.

    Raises:
        ValueError: another precision, or a student in train mode.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision '{precision}': a fast form has {' or '.join(DTYPES)}")
    device = next(student.parameters()).device
    kernel = conv_kernel(DTYPES[precision], device) if packed else FoldedConv
    rows = cpu_has_tiles() if row_products is None else row_products
    return fast_form_of(student, DTYPES[precision], kernel, rows)


def fast_form_of(
    student: Student,
    dtype: torch.dtype,
    kernel: type[FoldedConv] = FoldedConv,
    row_products: bool = False,
) -> Student:
    """The fast form in parts of the caller's choice; else as `fast_form`.

    Args:
        student: in eval mode, on any device; not changed.
        dtype: of weights and maps.
        kernel: of convolutions.
        row_products: as in `fast_form`.

    Raises:
        ValueError: a student in train mode.
    """
    if student.training:
        raise ValueError('the fast form is for inference: call student.eval() first')
    with torch.no_grad():
        fast = _FormMaker(dtype, kernel, row_products).make(student)
    if not isinstance(fast, Student):
        raise TypeError(f'expected a Student, found {type(student).__name__}')
    return fast


class _FormMaker:
    """Replaces modules by their fast forms, from the root down."""

    def __init__(self, dtype: torch.dtype, kernel: type[FoldedConv], rows: bool) -> None:
        self.dtype = dtype
        self.kernel = kernel
        self.rows = rows

    def make(self, module: nn.Module, owns_input: bool = False) -> nn.Module:
        """The fast form of a module; `owns_input`: it may overwrite what it is given."""
        match module:
            case ConvBn():
                return self._conv(module.conv, module.bn, isinstance(module, ConvBnRelu))
            case nn.Conv2d():
                return self._conv(module, None, False)
            case BasicBlock() | Bottleneck():
                return self._residual(module, owns_input)
            case SelfCalibratedBlock():
                convs = {name: self._conv_of(child) for name, child in module.named_children()}
                convs['merge'].relu = True  # the plain block's own, after the residual
                return FastSelfCalibratedBlock(convs, owns_input)
            case UpConvBnRelu():
                return FastUpConv(module, self.dtype)
            case BevBackbone():
                ups = [
                    FastUpConv(up, self.dtype) for up in module.ups if isinstance(up, UpConvBnRelu)
                ]
                return FastBevBackbone(module, [self.make(block) for block in module.blocks], ups)
            case Aspp():
                return self._aspp(module)
            case Lift():
                return FastLift(module)
            case Collapse():
                return FastCollapse(module, self.dtype)
        children = {
            # Only a chain hands over what nobody else holds, and not to its first link.
            name: child and self.make(child, isinstance(module, nn.Sequential) and position > 0)
            for position, (name, child) in enumerate(module._modules.items())
        }
        if isinstance(module, ImageBackbone):
            children['conv1'] = self._conv(module.conv1, module.bn1, True)
            children['bn1'] = nn.Identity()
        return _with_children(module, children)

    def _conv(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu: bool) -> FoldedConv:
        # In fp32 only: bf16 has too few digits for the sums that it takes.
        if self.kernel is PackedConv and self.dtype == torch.float32 and winograd_pays(conv):
            return WinogradConv(conv, norm, relu, self.dtype)
        return self.kernel(conv, norm, relu, self.dtype)

    def _conv_of(self, module: nn.Module) -> FoldedConv:
        made = self.make(module)
        if not isinstance(made, FoldedConv):
            raise TypeError(f'expected a convolution, found {type(module).__name__}')
        return made

    def _aspp(self, aspp: Aspp) -> FastAspp:
        branches: list[nn.Module] = []
        for branch in aspp.branches:
            if self.rows and isinstance(branch, ConvBnRelu) and branch.conv.dilation[0] > 1:
                branches.append(RowClippedConv(branch.conv, branch.bn, self.dtype))
            else:
                branches.append(self.make(branch))
        project = self._conv(project_without_pooled(aspp), None, False)
        return FastAspp(aspp, branches, project, self.dtype)

    def _residual(self, block: BasicBlock | Bottleneck, owns_input: bool) -> FastResidual:
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        convs = [self._conv(conv, norm, True) for conv, norm in pairs]
        shortcut = None
        if isinstance(block.downsample, ConvBn):
            shortcut = self._conv_of(block.downsample)
        return FastResidual(convs, shortcut, owns_input)


def _with_children(module: nn.Module, children: dict[str, nn.Module | None]) -> nn.Module:
    """A shallow copy of a module around other children."""
    made = copy.copy(module)
    made._modules = dict(children)
    made._parameters = dict(module._parameters)
    made._buffers = dict(module._buffers)
    return made
