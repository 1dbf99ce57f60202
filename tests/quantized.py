"""Quantized layers to test on: integers behind DequantizeLinear, in scales that keep sums exact.

Scales are small integers over a power of two, so that float32 adds their multiples exactly in
whatever order, and original and rewritten model are compared bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
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
    constant_folded: bool = False
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
    if weight.constant_folded:
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


@dataclass(frozen=True)
class Activations:
    """How what flows between layers is quantized: one zero point, one scale behind the input."""

    kind: Any = np.uint8
    zero_point: int = 0
    scale: float = 2.0
    scale_behind: float = 512.0
    between: Sequence[str] = ("Relu",)
    """Pointwise layers between the layer and its QuantizeLinear."""


def network(
    layer: Layer = Layer(),
    activations: Activations = Activations(),
    sizes: Sequence[Size] = (5, 6),
    opset: int = 17,
    ends: Literal["float", "integer"] = "float",
    conv_behind: bool = False,
) -> ModelProto:
    """``x`` -> Q -> DQ -> the layer -> pointwise -> Q -> DQ -> (another Conv, Q, DQ) -> ``y``.

    ``ends`` tells whether the last DequantizeLinear is there.
    """
    nodes, held = parameters_of(layer, opset)
    if layer.bias == "int32":  # as quantizers choose it, and onnxruntime expects it
        per_channel = np.broadcast_to(held["w_scale"], layer.channels[1] // layer.group)
        held["b_scale"] = np.tile(per_channel, layer.group) * np.float32(activations.scale)
    given, grid = ["scale", "zero"], ["scale_behind", "zero"]
    held["scale"] = np.float32(activations.scale)
    held["scale_behind"] = np.float32(activations.scale_behind)
    held["zero"] = np.array(activations.zero_point, activations.kind)
    nodes += [
        node("QuantizeLinear", ["x", *given], ["x_int"]),
        node("DequantizeLinear", ["x_int", *given], ["x_grid"]),
        layer_node(layer, "x_grid", "t0"),
    ]
    for number, op in enumerate(activations.between):
        nodes.append(node(op, [f"t{number}"], [f"t{number + 1}"]))
    nodes.append(node("QuantizeLinear", [f"t{len(activations.between)}", *grid], ["up_int"]))
    last = "up_int"
    if conv_behind:
        rank, channels = len(layer.kernel), layer.channels[1]
        held["v_int"] = (
            np.random.default_rng(5).integers(-127, 128, (3, channels, *[3] * rank)).astype(np.int8)
        )
        held["v_scale"] = np.float32(1 / 64)
        held["v_zero"] = np.int8(0)
        nodes += [
            node("DequantizeLinear", ["up_int", *grid], ["up_grid"]),
            node("DequantizeLinear", ["v_int", "v_scale", "v_zero"], ["v"]),
            node("Conv", ["up_grid", "v"], ["c"], name="behind"),
            node("QuantizeLinear", ["c", *grid], ["c_int"]),
        ]
        last = "c_int"
    nodes[-1].output[0] = last
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(activations.kind))
    result = value(last, kind, [None] * (2 + len(sizes)))
    if ends == "float":
        nodes.append(node("DequantizeLinear", [last, *grid], ["y"]))
        result = value("y", 1, [None] * (2 + len(sizes)))
    body = graph(
        nodes,
        [value("x", 1, [1, layer.channels[0], *sizes])],
        [result],
        [tensor(name, array) for name, array in held.items()],
    )
    return model(body, opset)


Spelling = Literal["resize", "insertion"]


def upsampled_conv(
    spelling: Spelling,
    layer: Layer,
    activations: Activations = Activations(),
    between: bool = True,
    opset: int = 17,
) -> ModelProto:
    """``x [1, 4, 5, 6]`` -> Q -> DQ -> upsampling by 2 -> (Q -> DQ) -> Conv -> Q -> DQ -> ``y``."""
    nodes, held = parameters_of(layer, opset)
    given, grid = ["scale", "zero"], ["scale_behind", "zero"]
    held["scale"] = np.float32(activations.scale)
    held["scale_behind"] = np.float32(activations.scale_behind)
    held["zero"] = np.array(activations.zero_point, activations.kind)
    nodes += [
        node("QuantizeLinear", ["x", *given], ["x_int"]),
        node("DequantizeLinear", ["x_int", *given], ["x_grid"]),
    ]
    if spelling == "resize":
        held["factors"] = np.array([1, 1, 2, 2], np.float32)
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        nodes.append(node("Resize", ["x_grid", "", "factors"], ["u"], mode="nearest", **modes))
    else:
        held["split"] = np.array([1, 4, 5, 1, 6, 1])
        held["pads"] = np.array([0] * 9 + [1, 0, 1])
        held["merged"] = np.array([1, 4, 10, 12])
        nodes += [
            node("Reshape", ["x_grid", "split"], ["u0"]),
            node("Pad", ["u0", "pads"], ["u1"]),
            node("Reshape", ["u1", "merged"], ["u"]),
        ]
    if between:
        nodes += [
            node("QuantizeLinear", ["u", *given], ["u_int"]),
            node("DequantizeLinear", ["u_int", *given], ["u_grid"]),
        ]
    nodes.append(layer_node(layer, nodes[-1].output[0], "t0"))
    for number, op in enumerate(activations.between):
        nodes.append(node(op, [f"t{number}"], [f"t{number + 1}"]))
    nodes += [
        node("QuantizeLinear", [f"t{len(activations.between)}", *grid], ["y_int"]),
        node("DequantizeLinear", ["y_int", *grid], ["y"]),
    ]
    body = graph(
        nodes,
        [value("x", 1, [1, 4, 5, 6])],
        [value("y", 1, [None] * 4)],
        [tensor(name, array) for name, array in held.items()],
    )
    return model(body, opset)


def optimised_ops(proto: ModelProto) -> Counter[str]:
    """The operators of the graph that onnxruntime makes of ``proto`` and runs."""
    import onnxruntime

    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        made = onnx.load(options.optimized_model_filepath)
    return Counter(str(proto.op_type) for proto in made.graph.node)


__all__ = [
    "Activations",
    "Bias",
    "Layer",
    "Spelling",
    "Weight",
    "layer_node",
    "network",
    "optimised_ops",
    "parameters_of",
    "quantized",
    "scales",
    "upsampled_conv",
]
