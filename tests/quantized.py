"""Quantized layers to test on: integers behind DequantizeLinear, in scales that keep sums exact.

Scales are small integers over a power of two, so that float32 adds their multiples exactly in
whatever order, and original and rewritten model are compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, helper

from tests.build import Array, Size, graph, model, node, tensor, value

Bias = Literal["int32", "int32_per_tensor", "float", "none"]
Zero = Literal["none", "zero", "some"]


@dataclass(frozen=True)
class Weight:
    """How a weight is quantized; ``axis`` None for one scale, else of the scales."""

    kind: Any = np.int8
    axis: int | None = 1
    zero: Zero = "some"
    folded: bool = False
    """True where a QuantizeLinear makes the integers of floats."""
    scale: Any = np.float32


@dataclass(frozen=True)
class Layer:
    """A Conv or ConvTranspose between 4 and 6 channels."""

    weight: Weight = Weight()
    bias: Bias = "int32"
    kernel: Sequence[int] = (4, 4)
    group: int = 1
    op: str = "ConvTranspose"
    channels: tuple[int, int] = (4, 6)
    attributes: dict[str, Any] = field(default_factory=lambda: {"strides": [2, 2]})

    @property
    def shape(self) -> tuple[int, ...]:
        first, second = self.channels if self.op == "ConvTranspose" else self.channels[::-1]
        return first, second // self.group, *self.kernel


def scales(shape: Sequence[int], rng: np.random.Generator, kind: Any = np.float32) -> Array:
    """Between 1/16 and 1, in sixteenths."""
    return np.asarray(rng.integers(1, 17, shape) / 16, kind)


def parameters_of(
    layer: Layer, opset: int, seed: int = 0
) -> tuple[list[NodeProto], dict[str, Array]]:
    """Nodes that make ``w`` and ``b``, and the initializers that they read."""
    rng = np.random.default_rng(seed)
    weight, shape = layer.weight, layer.shape
    limits = np.iinfo(weight.kind)
    integers = rng.integers(limits.min, limits.max + 1, shape).astype(weight.kind)
    per = () if weight.axis is None else (shape[weight.axis],)
    along = {} if weight.axis is None else {"axis": weight.axis}
    held: dict[str, Array] = {"w_scale": scales(per, rng, weight.scale)}
    if weight.zero != "none":
        zeros = np.zeros(per) if weight.zero == "zero" else rng.integers(0, 9, per)
        held["w_zero"] = zeros.astype(weight.kind)
    names = list(held)
    nodes = []
    if weight.folded:
        held["w_float"] = np.asarray(rng.uniform(-150, 300, shape) / 16, weight.scale)
        nodes.append(node("QuantizeLinear", ["w_float", *names], ["w_int"], **along))
    else:
        held["w_int"] = integers
    nodes.append(node("DequantizeLinear", ["w_int", *names], ["w"], name="dequantize", **along))
    if layer.bias != "none":
        nodes += _bias(layer, held, opset, rng)
    return nodes, held


def _bias(
    layer: Layer, held: dict[str, Array], opset: int, rng: np.random.Generator
) -> list[NodeProto]:
    channels = layer.channels[1]
    if layer.bias == "float":
        held["b"] = np.asarray(rng.integers(-99, 100, channels) / 16, layer.weight.scale)
        return []
    per = () if layer.bias == "int32_per_tensor" else (channels,)
    held["b_int"] = rng.integers(-999, 1000, channels).astype(np.int32)
    held["b_scale"] = scales(per, rng, layer.weight.scale)
    axis = {"axis": 0} if per else {}
    return [node("DequantizeLinear", ["b_int", "b_scale"], ["b"], **axis)]


def layer_node(layer: Layer, x: str, y: str) -> NodeProto:
    """The layer itself, called ``up``."""
    given = [x, "w"] if layer.bias == "none" else [x, "w", "b"]
    return node(layer.op, given, [y], name="up", group=layer.group, **layer.attributes)


def quantized(
    layer: Layer = Layer(), sizes: Sequence[Size] = (5, 6), opset: int = 17
) -> ModelProto:
    """``x [1, 4, ..]`` -> the layer -> ``y``, both of the float type of the scales."""
    nodes, held = parameters_of(layer, opset)
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(layer.weight.scale))
    body = graph(
        [*nodes, layer_node(layer, "x", "y")],
        [value("x", dtype, [1, layer.channels[0], *sizes])],
        [value("y", dtype, [None] * (2 + len(sizes)))],
        [tensor(name, array) for name, array in held.items()],
    )
    return model(body, opset)


__all__ = [
    "Bias",
    "Layer",
    "Weight",
    "layer_node",
    "parameters_of",
    "quantized",
    "scales",
]
