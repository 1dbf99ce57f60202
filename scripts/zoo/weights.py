"""Random weights on which a network's outputs are neither saturated nor tiny."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized


def _products_per_output(layer: _ConvNd) -> float:
    """How many products one output element sums up, on average over the phases."""
    products = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, _ConvTransposeNd):
        return products / math.prod(layer.stride)
    return products


def _is_frozen(layer: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in layer.parameters())


def _set_weight(layer: _ConvNd, weight: Tensor) -> None:
    if is_parametrized(layer, "weight"):
        layer.weight = weight  # through the parametrization's inverse
    else:
        layer.weight.copy_(weight)


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Give `network` seeded weights and running statistics in place; returns it in eval mode.

    Convolutions keep the signal's power (a gain for ReLU would let the residual sums of a deep
    network run away); biases and BatchNorm (scale, shift, mean and variance) are non-trivial, so
    that a fold that drops one of them changes the output. A layer whose weights are all frozen
    (``requires_grad`` False) means something of its own and is left alone.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, std: float) -> Tensor:
        return torch.randn(like.shape, generator=generator) * std

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    for layer in network.modules():
        if isinstance(layer, _ConvNd) and not _is_frozen(layer):
            std = 1 / math.sqrt(_products_per_output(layer))
            _set_weight(layer, normal(layer.weight, std))
            if layer.bias is not None:
                layer.bias.copy_(normal(layer.bias, 0.1))
        elif isinstance(layer, _BatchNorm):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.weight.copy_(uniform(layer.weight, 0.6, 1.4))
            layer.bias.copy_(normal(layer.bias, 0.2))
            layer.running_mean.copy_(normal(layer.running_mean, 0.3))
            layer.running_var.copy_(uniform(layer.running_var, 0.5, 1.5))
    return network.eval()
