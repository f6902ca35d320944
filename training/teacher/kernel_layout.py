"""Order of the axes in which sparse-convolution kernels are stored, by version of spconv.

Letters of a layout: O I output and input channels, Z Y X kernel cells. Source: cmkd-spec G.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

FIRST_KERNEL = 'backbone_3d.conv_input.0.weight'
FIRST_CHANNELS = (4, 16)  # into and out of the first convolution: they differ, so that it tells

# layout -> permutation to OZYXI, which spconv has stored since 2.2 and our networks use
LAYOUTS: dict[str, tuple[int, ...]] = {
    'OZYXI (spconv 2)': (0, 1, 2, 3, 4),
    'ZYXIO (spconv 1)': (4, 0, 1, 2, 3),
    'ZYXOI (early spconv 2)': (3, 0, 1, 2, 4),
}


def kernel_layout(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Layout of all sparse kernels of a file, told by its first convolution.

    The other kernels could not tell: most have as many input as output channels.

    Args:
        shapes: of an official checkpoint's tensors, by key.

    Returns:
        A key of `LAYOUTS`; None for a network without sparse convolutions.

    Raises:
        ValueError: the first kernel has none of the three shapes, or is missing.
    """
    if not any(key.startswith('backbone_3d.') for key in shapes):
        return None
    found = shapes.get(FIRST_KERNEL)
    channels_in, channels_out = FIRST_CHANNELS
    current = (channels_out, 3, 3, 3, channels_in)
    stored = {
        layout: tuple(current[permutation.index(axis)] for axis in range(len(current)))
        for layout, permutation in LAYOUTS.items()
    }
    for layout, shape in stored.items():
        if found == shape:
            return layout
    expected = ' or '.join(f'{shape} {layout}' for layout, shape in stored.items())
    raise ValueError(f'{FIRST_KERNEL}: expected {expected}, found {found or "no such tensor"}')


def to_current_layout(
    tensors: Mapping[str, torch.Tensor], layout: str | None
) -> dict[str, torch.Tensor]:
    """The same tensors with every sparse kernel (five axes) in the layout of our networks."""
    if layout is None:
        return dict(tensors)
    permutation = LAYOUTS[layout]
    return {
        key: tensor.permute(permutation).contiguous() if tensor.ndim == 5 else tensor
        for key, tensor in tensors.items()
    }
