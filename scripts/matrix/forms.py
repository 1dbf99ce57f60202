"""The upsampling layers that every target is tried with, each a model of one layer.

Weights and inputs depend on nothing but the name of the form, so that a run can be repeated. Every
model has the input ``x`` and the output ``y``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]

_STEP_IN, _STEP_OUT = 0.03, 0.05
"""The scales of the quantized forms."""
_SIZES = {"n": 1, "h": 20, "w": 20}
"""What the dynamic sizes are when a form is run."""


@dataclass(frozen=True)
class Form:
    """One upsampling layer as an exporter writes it.

    Attributes:
        name: what the records call it.
        make: makes the model; its argument is the source of its weights.
        shape: the shape of ``x``; a name is a dynamic size.
        opset: the version of the ONNX operators.
        dtype: the element type of ``x`` and ``y``.
        step: the quantization step of ``y``; 0 if it is not quantized.
    """

    name: str
    make: Callable[[Form, np.random.Generator], Layer]
    shape: tuple[int | str, ...] = (1, 16, 20, 20)
    opset: int = 17
    dtype: int = TensorProto.FLOAT
    step: float = 0.0

    def model(self) -> onnx.ModelProto:
        """The model, with the shapes of all its tensors."""
        layer = self.make(self, self._random(0))
        graph = helper.make_graph(
            layer.nodes,
            self.name,
            [helper.make_tensor_value_info("x", self.dtype, self.shape)],
            [helper.make_tensor_value_info("y", self.dtype, None)],
            [_tensor(name, value) for name, value in layer.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        return onnx.shape_inference.infer_shapes(model, data_prop=True)

    def sizes(self) -> tuple[int, ...]:
        """The shape of ``x`` in a run."""
        return tuple(_SIZES[one] if isinstance(one, str) else one for one in self.shape)

    def input(self) -> Array:
        """The ``x`` of a run, in the form's element type."""
        drawn: Array = self._random(1).standard_normal(self.sizes()).astype(np.float32)
        element = helper.tensor_dtype_to_np_dtype(self.dtype)
        return drawn.astype(element)

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(self.name.encode()), stream])


@dataclass(frozen=True)
class Layer:
    """Nodes from ``x`` to ``y``, with the arrays that they read."""

    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Array] = field(default_factory=dict)


def _tensor(name: str, value: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _drawn(random: np.random.Generator, *shape: int) -> Array:
    """Weights that keep the size of what they multiply, in float32."""
    fan = float(np.prod(shape[1:])) or 1.0
    drawn: Array = random.standard_normal(shape) / np.sqrt(fan)
    return drawn.astype(np.float32)


def transposed(
    form: Form,
    random: np.random.Generator,
    *,
    kernel: tuple[int, ...],
    channels: int = 8,
    group: int = 1,
    bias: bool = True,
    states_kernel: bool = True,
    **attributes: Any,
) -> Layer:
    """A ConvTranspose to ``channels`` channels, with or without the attribute kernel_shape."""
    if states_kernel:
        attributes["kernel_shape"] = kernel
    weight = _drawn(random, int(form.shape[1]), channels // group, *kernel)
    constants = {"w": weight, **({"b": _drawn(random, channels)} if bias else {})}
    element = helper.tensor_dtype_to_np_dtype(form.dtype)
    node = helper.make_node(
        "ConvTranspose",
        ["x", *constants],
        ["y"],
        "up",
        group=group,
        **attributes,
    )
    return Layer([node], {name: value.astype(element) for name, value in constants.items()})


def _quantized(
    form: Form, random: np.random.Generator, *, per_channel: bool, **layer: Any
) -> Layer:
    """A ConvTranspose between QuantizeLinear and DequantizeLinear, with int8 weights."""
    plain = transposed(form, random, **layer)
    weight = plain.constants["w"]
    largest = np.abs(weight).max(axis=(0, 2, 3) if per_channel else None)
    scale = np.asarray(largest / 127, np.float32)
    divisor = scale.reshape(1, -1, 1, 1) if per_channel else scale
    constants = {
        "w_int8": np.clip(np.round(weight / divisor), -127, 127).astype(np.int8),
        "w_scale": scale,
        "w_zero": np.zeros(scale.shape, np.int8),
        "b": plain.constants["b"],
        "x_scale": np.float32(_STEP_IN),
        "y_scale": np.float32(_STEP_OUT),
        "zero": np.int8(0),
    }
    axis: dict[str, Any] = {"axis": 1} if per_channel else {}
    (node,) = plain.nodes
    node.input[0], node.input[1], node.output[0] = "x_float", "w", "y_float"
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_int8"]),
        helper.make_node("DequantizeLinear", ["x_int8", "x_scale", "zero"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w"], **axis),
        node,
        helper.make_node("QuantizeLinear", ["y_float", "y_scale", "zero"], ["y_int8"]),
        helper.make_node("DequantizeLinear", ["y_int8", "y_scale", "zero"], ["y"]),
    ]
    return Layer(nodes, {name: np.asarray(value) for name, value in constants.items()})


def _conv(
    source: str, target: str, weight: Array, random: np.random.Generator, pads: Sequence[int]
) -> tuple[onnx.NodeProto, dict[str, Array]]:
    constants = {"w": weight, "b": _drawn(random, weight.shape[0])}
    node = helper.make_node(
        "Conv", [source, "w", "b"], [target], "conv", kernel_shape=weight.shape[2:], pads=pads
    )
    return node, constants


def nearest_conv(form: Form, random: np.random.Generator) -> Layer:
    """Nearest Resize by 2, then a Conv of 3 taps along each axis."""
    rank = len(form.shape) - 2
    resize = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["large"],
        "up",
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    weight = _drawn(random, 8, int(form.shape[1]), *[3] * rank)
    conv, constants = _conv("large", "y", weight, random, [1] * (2 * rank))
    scales = np.array([1, 1, *[2] * rank], np.float32)
    return Layer([resize, conv], {**constants, "scales": scales})


def _zero_insertion_conv(form: Form, random: np.random.Generator) -> Layer:
    """A zero behind each row and column by Reshape, Pad and Reshape, then a 4x4 Conv."""
    n, channels, height, width = form.sizes()
    conv, constants = _conv("large", "y", _drawn(random, 8, channels, 4, 4), random, [2, 2, 1, 1])
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["spread"]),
        helper.make_node("Pad", ["spread", "zeros"], ["padded"]),
        helper.make_node("Reshape", ["padded", "joined"], ["large"]),
        conv,
    ]
    shapes = {
        "split": np.array([n, channels, height, 1, width, 1]),
        "zeros": np.array([0] * 9 + [1, 0, 1]),
        "joined": np.array([n, channels, 2 * height, 2 * width]),
    }
    return Layer(nodes, {**constants, **shapes})


def _pixel_shuffle(form: Form, random: np.random.Generator) -> Layer:
    """A Conv to 32 channels, then a shuffle by 2 as Reshape, Transpose and Reshape."""
    n, channels, *image = form.sizes()
    rank = len(image)
    outputs = 32 // 2**rank
    weight = _drawn(random, 32, channels, *[3] * rank)
    conv, constants = _conv("x", "deep", weight, random, [1] * (2 * rank))
    perm = [0, 1, *(axis for i in range(rank) for axis in (2 + rank + i, 2 + i))]
    nodes = [
        conv,
        helper.make_node("Reshape", ["deep", "split"], ["blocks"]),
        helper.make_node("Transpose", ["blocks"], ["turned"], perm=perm),
        helper.make_node("Reshape", ["turned", "joined"], ["y"]),
    ]
    shapes = {
        "split": np.array([n, outputs, *[2] * rank, *image]),
        "joined": np.array([n, outputs, *(2 * size for size in image)]),
    }
    return Layer(nodes, {**constants, **shapes})


def _depth_to_space(form: Form, random: np.random.Generator, *, mode: str) -> Layer:
    """A Conv to 32 channels, then DepthToSpace by 2."""
    conv, constants = _conv("x", "deep", _drawn(random, 32, 16, 3, 3), random, [1] * 4)
    shuffle = helper.make_node("DepthToSpace", ["deep"], ["y"], blocksize=2, mode=mode)
    return Layer([conv, shuffle], constants)


_K4: dict[str, Any] = {"kernel": (4, 4), "strides": [2, 2], "pads": [1] * 4}
_K2: dict[str, Any] = {"kernel": (2, 2), "strides": [2, 2]}
_K3: dict[str, Any] = {"kernel": (3, 3), "strides": [2, 2]}
_IMAGE, _LINE, _VOLUME = (1, 16, 20, 20), (1, 16, 64), (1, 8, 6, 8, 8)

_TRANSPOSED: Mapping[str, tuple[tuple[int | str, ...], Mapping[str, Any]]] = {
    "k2s2": (_IMAGE, _K2),
    "k4s2p1": (_IMAGE, _K4),
    "k3s2p1op1": (_IMAGE, {**_K3, "pads": [1] * 4, "output_padding": [1, 1]}),
    "k3s2p1": (_IMAGE, {**_K3, "pads": [1] * 4}),
    "k3s2p0": (_IMAGE, _K3),
    "k8s4p2": (_IMAGE, {"kernel": (8, 8), "strides": [4, 4], "pads": [2] * 4}),
    "k9s3p4": (_IMAGE, {"kernel": (9, 9), "strides": [3, 3], "pads": [4] * 4, "channels": 1}),
    "k5s2p2op1": (
        _IMAGE,
        {"kernel": (5, 5), "strides": [2, 2], "pads": [2] * 4, "output_padding": [1, 1]},
    ),
    "k1s2": (_IMAGE, {"kernel": (1, 1), "strides": [2, 2]}),
    "k3s1p1": (_IMAGE, {"kernel": (3, 3), "strides": [1, 1], "pads": [1] * 4}),
    "dw_k4s2": (_IMAGE, {**_K4, "group": 16, "channels": 16}),
    "dw_k2s2": (_IMAGE, {**_K2, "group": 16, "channels": 16}),
    "g4_k4s2": (_IMAGE, {**_K4, "group": 4}),
    "dil2_k3s2": (
        _IMAGE,
        {**_K3, "dilations": [2, 2], "pads": [2] * 4, "output_padding": [1, 1]},
    ),
    "dil2_k3s1": (_IMAGE, {"kernel": (3, 3), "dilations": [2, 2], "pads": [2] * 4}),
    "asym_pads": (_IMAGE, {**_K4, "pads": [0, 1, 2, 1]}),
    "s21": (_IMAGE, {"kernel": (4, 3), "strides": [2, 1], "pads": [1] * 4}),
    "s12": (_IMAGE, {"kernel": (3, 4), "strides": [1, 2], "pads": [1] * 4}),
    "s23": (_IMAGE, {"kernel": (4, 3), "strides": [2, 3], "pads": [1, 0, 1, 0]}),
    "same_upper": (_IMAGE, {**_K3, "auto_pad": "SAME_UPPER"}),
    "same_lower": (_IMAGE, {**_K3, "auto_pad": "SAME_LOWER"}),
    "output_shape": (_IMAGE, {**_K3, "output_shape": [40, 40]}),
    "nobias_k4s2p1": (_IMAGE, {**_K4, "bias": False}),
    "d1_k4s2p1": (_LINE, {"kernel": (4,), "strides": [2], "pads": [1, 1]}),
    "d1_k16s8p4": ((1, 16, 40), {"kernel": (16,), "strides": [8], "pads": [4, 4]}),
    "d1_dil2_k3s2": (
        _LINE,
        {"kernel": (3,), "strides": [2], "dilations": [2], "pads": [2] * 2, "output_padding": [1]},
    ),
    "d3_k2s2": (_VOLUME, {"kernel": (2, 2, 2), "strides": [2] * 3, "channels": 4}),
    "d3_k3s2p1op1": (
        _VOLUME,
        {
            **{"kernel": (3, 3, 3), "strides": [2] * 3, "pads": [1] * 6},
            **{"output_padding": [1] * 3, "channels": 4},
        },
    ),
    "d3_s122": (_VOLUME, {"kernel": (1, 2, 2), "strides": [1, 2, 2], "channels": 4}),
    "batch2_k4s2p1": ((2, 16, 12, 12), _K4),
    "dynhw_k4s2p1": (("n", 16, "h", "w"), _K4),
    "dynn_k2s2": (("n", 16, 20, 20), _K2),
}
"""Name -> shape of ``x``, and kernel, channels and attributes of the ConvTranspose."""

_K4_FP16 = partial(transposed, **_K4)

_OTHERS = (
    Form("nearest_conv3", nearest_conv),
    Form("zero_insert_conv4", _zero_insertion_conv),
    Form("ps_6d", _pixel_shuffle),
    Form("ps_1d", _pixel_shuffle, _LINE),
    Form("d2s_dcr", partial(_depth_to_space, mode="DCR")),
    Form("d2s_crd", partial(_depth_to_space, mode="CRD")),
    Form("fp16_k4s2p1", _K4_FP16, dtype=TensorProto.FLOAT16),
    Form("bf16_k4s2p1", _K4_FP16, dtype=TensorProto.BFLOAT16, opset=22),
    Form("qdq_tensor_k4s2p1", partial(_quantized, per_channel=False, **_K4), step=_STEP_OUT),
    Form("qdq_channel_k4s2p1", partial(_quantized, per_channel=True, **_K4), step=_STEP_OUT),
    Form("qdq_channel_k2s2", partial(_quantized, per_channel=True, **_K2), step=_STEP_OUT),
)

FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        *(
            Form(name, partial(transposed, **layer), shape)
            for name, (shape, layer) in _TRANSPOSED.items()
        ),
        *_OTHERS,
    )
}
"""The forms by name."""
