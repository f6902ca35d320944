"""A convolution and a batch norm with numbers as after training."""

import torch
from torch import nn


def fill(conv: nn.Conv2d, norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    """Random weights, shifts and statistics; scales and variances between 0.5 and 1.5."""
    with torch.no_grad():
        for parameter in (*conv.parameters(), norm.bias, norm.running_mean):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        for parameter in (norm.weight, norm.running_var):
            parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
