"""Image network: normalisation and a ResNet dilated to stride 8 of its own input.

Letters: B batch, H W rows and columns of the canvas, C channels, h w feature rows and columns.
The ResNet is the "v1.5" one (the stride sits in the 3x3 of a bottleneck), with the strides of
layer3 and layer4 replaced by dilation as DeepLabV3 does (Chen et al., arXiv 1706.05587).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.conv_bn import ConvBn

STEM_CHANNELS = 64  # of the published ResNets
WIDENING = (1, 2, 4)  # of layer1..layer3 over the stem; layer4's follows from its output channels


class ImageFeatures(NamedTuple):
    """What the image backbone sees, at stride 8 of its input.

    Attributes:
        features_BCHW: (B, C, h, w) output of layer3: what is lifted into the grid.
        deep_BCHW: (B, C', h, w) output of layer4: what the depth is read from.
    """

    features_BCHW: torch.Tensor
    deep_BCHW: torch.Tensor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet-18)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, 1, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, width, H / stride, W / stride)."""
        residual = F.relu(self.bn1(self.conv1(maps_BCHW)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(maps_BCHW), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * width, H / stride, W / stride)."""
        residual = F.relu(self.bn1(self.conv1(maps_BCHW)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.downsample(maps_BCHW), inplace=True)


Block = type[BasicBlock] | type[Bottleneck]
RESNETS: dict[str, tuple[Block, tuple[int, int, int, int]]] = {
    'resnet10': (BasicBlock, (1, 1, 1, 1)),
    'resnet18': (BasicBlock, (2, 2, 2, 2)),
    'resnet50': (Bottleneck, (3, 4, 6, 3)),
}


class ImageBackbone(nn.Module):
    """Normalises an RGB image and extracts features at stride 8 * downscale."""

    mean_rgb: torch.Tensor
    std_rgb: torch.Tensor

    def __init__(
        self,
        resnet: str,
        layer4_channels: int,
        mean_rgb: Sequence[float],
        std_rgb: Sequence[float],
        downscale: int = 1,
        stem_channels: int = STEM_CHANNELS,
    ) -> None:
        """Build the layers, with the initialisation ResNets are trained from.

        Args:
            resnet: 'resnet10', 'resnet18' or 'resnet50'.
            layer4_channels: channels of the deep features; 2048 in the published ResNet-50.
            mean_rgb, std_rgb: of the images in [0, 1].
            downscale: 1, or 2 to average 2x2 pixels of the normalised image first.
            stem_channels: of the first convolution; all layers but layer4 widen with it.

        Raises:
            ValueError: unknown resnet, or channels that its blocks cannot put out.
        """
        super().__init__()
        if resnet not in RESNETS:
            raise ValueError(f"image backbone '{resnet}': expected one of {', '.join(RESNETS)}")
        block, counts = RESNETS[resnet]
        if layer4_channels % block.expansion:
            raise ValueError(
                f'layer4_channels = {layer4_channels}: must be a multiple of {block.expansion} '
                f'for {resnet}'
            )
        self.downscale = downscale
        inner = [stem_channels * factor for factor in WIDENING]
        self.feature_channels = inner[2] * block.expansion
        self.deep_channels = layer4_channels
        self.register_buffer('mean_rgb', torch.tensor(mean_rgb).view(3, 1, 1), persistent=False)
        self.register_buffer('std_rgb', torch.tensor(std_rgb).view(3, 1, 1), persistent=False)

        self.conv1 = nn.Conv2d(3, stem_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        channels = [stem_channels, *(width * block.expansion for width in inner)]
        widths = [*inner, layer4_channels // block.expansion]
        self.layer1 = _layer(block, channels[0], widths[0], counts[0], stride=1)
        self.layer2 = _layer(block, channels[1], widths[1], counts[1], stride=2)
        # The first block of a dilated layer keeps the dilation of the layer before.
        self.layer3 = _layer(block, channels[2], widths[2], counts[2], dilations=(1, 2))
        self.layer4 = _layer(block, channels[3], widths[3], counts[3], dilations=(2, 4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def normalise(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Whiten an RGB image in [0, 1]; padding (NaN) becomes the mean colour, which is zero.

        Returns:
            (B, 3, ceil(H / downscale), ceil(W / downscale)).
        """
        image = (image_B3HW - self.mean_rgb) / self.std_rgb
        return self.shrink(torch.where(image_B3HW.isnan(), image.new_zeros(()), image))

    def shrink(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Average `downscale` x `downscale` pixels of a whitened image."""
        if self.downscale == 1:
            return image_B3HW
        return F.avg_pool2d(image_B3HW, self.downscale, ceil_mode=True, count_include_pad=False)

    def forward(self, image_B3HW: torch.Tensor) -> ImageFeatures:
        """Features of an RGB image in [0, 1], NaN where the canvas is padded.

        Returns:
            Maps of size ceil(H / (8 * downscale)) x ceil(W / (8 * downscale)).
        """
        return self.features(self.normalise(image_B3HW))

    def features(self, image_B3HW: torch.Tensor) -> ImageFeatures:
        """Features of an image that `normalise` put out."""
        maps = image_B3HW.contiguous(memory_format=torch.channels_last)
        maps = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        maps = F.max_pool2d(maps, 3, stride=2, padding=1)
        maps = self.layer1(maps)
        maps = self.layer2(maps)
        features = self.layer3(maps)
        del maps
        return ImageFeatures(features, self.layer4(features))


def _layer(
    block: Block,
    in_channels: int,
    width: int,
    count: int,
    stride: int = 1,
    dilations: tuple[int, int] = (1, 1),
) -> nn.Sequential:
    """`count` blocks; `stride` and the first of `dilations` belong to the first one."""
    first = block(in_channels, width, stride, dilations[0])
    out_channels = width * block.expansion
    return nn.Sequential(
        first, *(block(out_channels, width, 1, dilations[1]) for _ in range(count - 1))
    )


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        bias=False,
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvBn(in_channels, out_channels, 1, stride)
