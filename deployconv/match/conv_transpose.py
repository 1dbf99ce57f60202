"""ConvTranspose with any attributes.

    x, W, (B) -> ConvTranspose -> y
    x -> Conv 1x1 -> Reshape -> Col2Im -> y      (`col2im`)

An output element ``o`` reads input ``(o + p - d*t) / s`` through tap ``t`` if that is whole
(ONNX operator ConvTranspose). `_padding` finds ``p`` for all ways to state it.

ConvTransposeWithDynamicPads of onnxruntime has its pads as an input, before the bias. It is the
same layer if they are the same at all sizes.

A kernel that is zero between different channels, as FCN's bilinear ones are, is that of a depthwise
layer. It is taken as one: with as many groups as channels, and without the zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import Unproven
from deployconv.graph.view import View
from deployconv.match.attributes import (
    AttributeReader,
    ConvAttributes,
    batch_size,
    has_references,
    is_standard,
    spatial_sizes,
)
from deployconv.match.col2im import overlapping_blocks
from deployconv.match.recogniser import Recogniser, Site, SkippedSite
from deployconv.match.site import Original, UpsampleSite
from deployconv.match.weights import Parameter, Quantized, find_parameters, find_weight
from deployconv.polyphase import Axis
from deployconv.results import Reason

Array = NDArray[Any]


def _recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site of the ConvTranspose ``node``; None for any other operator.

    Raises ModelError for a node that no runtime could accept.
    """
    if is_standard(node, "Col2Im"):
        return overlapping_blocks(node, scope, view, name)
    padded = node.op == "ConvTransposeWithDynamicPads" and node.domain == "com.microsoft"
    if not padded and not is_standard(node, "ConvTranspose"):
        return None
    skip = partial(SkippedSite, id=name, pattern="conv_transpose", scope=scope, nodes=(node,))
    if has_references(node):
        text = "its attributes are the function's parameters"
        return skip(reason=Reason("attribute-reference", text))
    weight = find_weight(node, scope, view)
    if isinstance(weight, Reason):
        return skip(reason=weight)
    pads = _computed_pads(node, scope, view) if padded else None
    if isinstance(pads, Reason):
        return skip(reason=pads)
    attributes = _Attributes.of(node, weight, name, pads)
    geometry = attributes.geometry
    parameters = find_parameters(node, scope, view, weight, any_scales=True)
    if isinstance(parameters, Reason):
        return skip(reason=parameters, geometry=geometry, dtype=weight.dtype.name)
    channels = weight.shape[0], weight.shape[1] * attributes.group
    reader = AttributeReader(node, name)
    reader.check_operands(node.inputs[0], weight, parameters.bias, channels)
    sizes = spatial_sizes(node.inputs[0], attributes.rank)
    padding = _negative(attributes) or _padding(attributes, sizes)
    if isinstance(padding, Reason):
        return skip(reason=padding, geometry=geometry, dtype=weight.dtype.name)
    axes = _axes(attributes, padding)
    for axis, size in zip(axes, sizes, strict=True):
        if size is not None and axis.output_size(size) < 1:
            raise reader.invalid(f"attribute 'pads' leaves no output of an input of size {size}")
    diagonal = _diagonal(parameters.weight, attributes.group)
    # With output_shape the node runs with one input size only.
    known = tuple(size for size in sizes if size is not None)
    static = known if attributes.output_shape is not None else None
    return UpsampleSite(
        id=name,
        pattern="conv_transpose",
        scope=scope,
        nodes=(node,),
        input=node.inputs[0].name,
        output=node.outputs[0].name,
        axes=axes,
        geometry=geometry,
        weight=diagonal or parameters.weight,
        transposed=True,
        bias=parameters.bias,
        batch=batch_size(node.inputs[0]),
        sizes=sizes,
        original=lambda: Original((_plain(node, scope, pads),), {}, static),
        explicit_attributes=_explicit(attributes, padding),
        channel_group=channels[0] if diagonal is not None else None,
        stored=_dense if diagonal is not None else None,
    )


def _axes(attributes: _Attributes, padding: Sequence[_Padding]) -> tuple[Axis, ...]:
    """Which input element each tap reads, along each axis."""
    steps = attributes.strides, attributes.kernel, attributes.dilations
    return tuple(
        Axis.transposed(stride, taps, dilation, (pad.begin, pad.end), pad.output_padding)
        for stride, taps, dilation, pad in zip(*steps, padding, strict=True)
    )


def _diagonal(weight: Parameter, group: int) -> Parameter | None:
    """The kernels ``[C, 1, k_1 .. k_n]`` of a ``weight`` that mixes no channels, or None."""
    c_in, c_out = weight.shape[:2]
    if group > 1 or c_in != c_out or c_in == 1:
        return None
    values, quantized = weight.read(), weight.quantized
    if values.shape != weight.shape or (values[0, 1:] != 0).any():
        return None
    kept = _diagonal_of(values)
    if not np.array_equal(_dense(kept), values):
        return None
    if quantized is not None:
        quantized = _integers(quantized, weight.shape)
        if quantized is None:
            return None
    return replace(weight, shape=kept.shape, read=lambda: kept, quantized=quantized)


def _integers(dense: Quantized, shape: tuple[int, ...]) -> Quantized | None:
    """The integers of the diagonal of a weight of ``shape``; None if the taps have other scales.

    A scale of an input channel is that of the one output channel which reads it.
    """
    zero_point = dense.zero_point
    if not dense.by_output:
        held = [dense.scale] if zero_point is None else [dense.scale, zero_point]
        spread = [_diagonal_of(np.broadcast_to(one, shape)).reshape(shape[0], -1) for one in held]
        if any((one != one[:, :1]).any() for one in spread):
            return None
        dense = replace(dense, by_output=True, scale=spread[0][:, 0])
        zero_point = None if zero_point is None else spread[1][:, 0]
    read = dense.read
    return replace(dense, read=lambda: _diagonal_of(read()), zero_point=zero_point, group=shape[0])


def _diagonal_of(values: Array) -> Array:
    """The diagonal ``[C, 1, k_1 .. k_n]`` of a weight ``[C, C, k_1 .. k_n]``."""
    channels = range(len(values))
    return np.asarray(values[channels, channels][:, None])


def _dense(kernels: Array) -> Array:
    """The weight ``[C, C, k_1 .. k_n]`` whose diagonal is ``kernels``, ``[C, 1, k_1 .. k_n]``."""
    channels = range(len(kernels))
    dense = np.zeros((len(kernels), *kernels[:, 0].shape), kernels.dtype)
    dense[channels, channels] = kernels[:, 0]
    return dense


def _computed_pads(node: gs.Node, scope: Scope, view: View) -> list[int] | Reason:
    """The pads that ``node`` has as an input, or the reason why they are not known."""
    given = node.inputs[2]
    constant = view.constants.of(given, scope)
    if view.constants.may_be_overridden(constant):
        return Reason(
            "overridable-initializer", "its pads are a default that a caller may override"
        )
    try:
        return view.open_shapes.of(given, scope).ints()
    except Unproven:
        return Reason("runtime-pads", "its pads are computed while the model runs")


def _plain(node: gs.Node, scope: Scope, pads: list[int] | None) -> NodeProto:
    """The NodeProto of ``node``, with ``pads`` as an attribute if they are an input."""
    proto = scope.copy_of(node)
    if pads is not None:
        proto.op_type, proto.domain = "ConvTranspose", ""
        del proto.input[2]
        proto.attribute.append(onnx.helper.make_attribute("pads", pads))
    return proto


RECOGNISERS = (Recogniser("conv_transpose", _recognise),)


@dataclass(frozen=True)
class _Attributes(ConvAttributes):
    """The attributes of a ConvTranspose; ``output_shape`` is None if it is not stated.

    It may have more or fewer values than spatial axes if the rank of the input is not known.
    """

    output_padding: tuple[int, ...]
    output_shape: tuple[int, ...] | None

    @classmethod
    def of(cls, node: gs.Node, weight: Constant, name: str, pads: list[int] | None) -> _Attributes:
        """The attributes of ``node``, with the ``pads`` that it has as an input, if it has."""
        reader = AttributeReader(node, name, {} if pads is None else {"pads": pads})
        conv = reader.conv(weight, grouped_axis=0)
        stated = node.attrs.get("output_shape")
        # Runtimes take batch and channels in it too if they do not know the rank of the input.
        values = conv.rank if node.inputs[0].shape is not None else len(stated or ())
        return cls(
            **vars(conv),
            output_padding=reader.ints("output_padding", conv.rank, 0, 0),
            output_shape=reader.ints("output_shape", values, 1, 1) if stated else None,
        )


@dataclass(frozen=True)
class _Padding:
    """Explicit padding of one axis."""

    begin: int
    end: int
    output_padding: int


def _negative(attributes: _Attributes) -> Reason | None:
    """The reason for negative pads, with the attributes or nodes that mean the same; None if none.

    They enlarge the output. onnxruntime refuses them, the ONNX reference evaluator does not.
    """
    grown = attributes.cropping
    if grown is None:
        return None
    rank, pads = attributes.rank, list(attributes.allowed_pads)
    extra = [more + end for more, end in zip(attributes.output_padding, grown[rank:], strict=True)]
    steps = zip(attributes.strides, attributes.dilations, strict=True)
    fits = all(more < max(step) for more, step in zip(extra, steps, strict=True))
    if not any(grown[:rank]) and fits:
        meant = f"pads {pads} and output_padding {extra} mean the same"
    else:
        meant = f"pads {pads} and a Pad by {list(grown)} after it, before a bias, mean the same"
    return Reason("negative-pads", f"its pads {list(attributes.pads)} are negative: {meant}")


def _padding(attributes: _Attributes, sizes: tuple[int | None, ...]) -> list[_Padding] | Reason:
    """Explicit padding per axis, if onnxruntime and the ONNX reference compute the same.

    ``auto_pad = SAME_*`` makes the output ``s`` times as large as the input, ``output_shape``
    states its size. The padding follows from that. If it is odd, the end gets one more for
    SAME_UPPER, else the beginning. The node is refused if the two implementations differ.
    """
    same = attributes.auto_pad.startswith("SAME")
    if attributes.auto_pad != "NOTSET" and any(attributes.pads):
        return Reason("ambiguous-same-pads", "it has both auto_pad and pads")
    found = []
    for axis in range(attributes.rank):
        stride, extra = attributes.strides[axis], attributes.output_padding[axis]
        reach = attributes.dilations[axis] * (attributes.kernel[axis] - 1) + 1
        if attributes.output_shape is not None:
            size = sizes[axis]
            if size is None:
                text = "its padding follows from output_shape and a size that is not static"
                return Reason("dynamic-output-shape", text)
            natural = stride * (size - 1) + reach
            total = natural + extra - attributes.output_shape[axis]
            beyond = attributes.output_shape[axis] - natural
            if not same and (beyond >= stride or 0 <= beyond < extra):
                text = "runtimes disagree on output_shape with this output_padding"
                return Reason("ambiguous-output-shape", text)
        elif same:
            total = reach + extra - stride
        else:
            begin, end = attributes.pads[axis], attributes.pads[attributes.rank + axis]
            found.append(_Padding(begin, end, extra))
            continue
        if total < 0 and same:
            text = "runtimes disagree on SAME padding for a kernel smaller than the stride"
            return Reason("ambiguous-same-pads", text)
        if total < 0:  # the output is larger than the taps reach: the rest is the bias alone
            found.append(_Padding(0, 0, extra - total))
            continue
        begin = total // 2 if attributes.auto_pad == "SAME_UPPER" else total - total // 2
        found.append(_Padding(begin, total - begin, extra))
    return found


def _explicit(attributes: _Attributes, padding: list[_Padding]) -> dict[str, Any] | None:
    """Attributes that TensorRT's importer reads as the ONNX reference does.

    None if it reads those of the node in this way. From an output_shape it computes padding with
    the odd element at the end, and none that is negative; under SAME_* it ignores output_padding.
    """
    same_misread = attributes.auto_pad.startswith("SAME") and any(attributes.output_padding)
    shape_misread = attributes.output_shape is not None and any(
        pad.begin != pad.end or pad.output_padding for pad in padding
    )
    if not same_misread and not shape_misread:
        return None
    explicit: dict[str, Any] = {
        "auto_pad": None,
        "output_shape": None,
        "pads": [pad.begin for pad in padding] + [pad.end for pad in padding],
    }
    if any(pad.output_padding for pad in padding):
        explicit["output_padding"] = [pad.output_padding for pad in padding]
    return explicit
