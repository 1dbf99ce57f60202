"""Whether the real parser and compiler take each kind of layer, as exported and rewritten.

The verdicts and texts depend on the version of tensorrt-rtx.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

import deployconv
from deployconv.options import Form
from deployconv.results import PaddedLayer
from deployconv.targets.capabilities import COMPILED
from tests.build import conv_transpose, graph, integers, model, node, tensor, upsampler, value
from tests.match.graphs import floats, parsed
from tests.runtimes.rtx import (
    RECORD,
    assert_fails,
    build,
    build_one,
    needs_record,
    needs_rtx,
    tells,
)

pytestmark = [needs_rtx, needs_record]

TARGETS = COMPILED
"""What the rules of the target were held against."""


def layer(kernel: tuple[int, ...], dtype: str = "float32", **attributes: Any) -> ModelProto:
    weight = integers(4, 4 // attributes.get("group", 1), *kernel).astype(np.dtype(dtype))
    return conv_transpose(weight, (5, 6, 4)[: len(kernel)], opset=22, **attributes)


LAYERS: dict[str, Callable[[], ModelProto]] = {
    "2-D k4 s2": lambda: layer((4, 4), strides=(2, 2), pads=(1, 1, 1, 1)),
    "2-D k2 s2": lambda: layer((2, 2), strides=(2, 2)),
    "2-D grouped": lambda: layer((4, 4), strides=(2, 2), group=2),
    "2-D unequal strides": lambda: layer((3, 5), strides=(3, 2)),
    "2-D float16": lambda: layer((4, 4), "float16", strides=(2, 2)),
    "1-D": lambda: layer((8,), strides=(4,), pads=(2, 2)),
    "3-D float32": lambda: layer((2, 2, 2), strides=(2, 2, 2)),
    "2-D dilation": lambda: layer((3, 3), strides=(2, 2), dilations=(2, 2)),
    "1-D dilation": lambda: layer((3,), strides=(2,), dilations=(2,)),
    "3-D dilation": lambda: layer((3, 3, 3), strides=(2, 2, 2), dilations=(2, 2, 2)),
    "bfloat16": lambda: layer((4, 4), "bfloat16", strides=(2, 2), pads=(1, 1, 1, 1)),
    "1-D bfloat16": lambda: layer((4,), "bfloat16", strides=(2,)),
    "int32 bias": lambda: with_integer_bias(),
    "1-D output_shape": lambda: layer((4,), strides=(2,), output_shape=(10,)),
}


RESIZES = {
    "antialias": ("antialias=1", 0.5, 18),
    "half_pixel_symmetric": (
        'coordinate_transformation_mode="half_pixel_symmetric"',
        1.5,
        19,
    ),
}


def refused(name: str, whole: bool, dims: str = "1,3,16,16") -> ModelProto:
    """A Resize of ``RESIZES``, by a whole factor if ``whole``."""
    attributes, factor, opset = RESIZES[name]
    if whole and factor == 1.5:
        factor = 2.0  # a fraction has no phases
    body = f'y = Resize<mode="linear", {attributes}>(x, , s)'
    return parsed(body, {"s": floats(1, 1, factor, factor)}, dims, opset=opset)


@pytest.mark.parametrize("form", ["matrix", "polyphase"])
@pytest.mark.parametrize("name", RESIZES)
def test_an_interpolating_resize_that_is_refused_builds_in_another_form(
    name: str, form: Form
) -> None:
    original, fails = refused(name, form == "polyphase"), RECORD.fails(name, "sm89")
    assert_fails(build(original, "sm89"), fails)
    done = deployconv.rewrite(original, resample=True, bench=False, form=form, target="sm89")
    assert [(site.form, site.certificate) for site in done.sites] == [(form, "exact")]
    assert done.model is not None
    assert done.compiled is not None
    assert_fails(done.compiled.after, {})
    (site,) = done.sites
    assert site.target_note is not None
    assert (site.target_note.mark, site.target_note.targets) == ("needed", ("sm89",))
    assert tells(site.target_note.text, fails["sm89"])


def test_only_the_resize_that_is_refused_is_needed() -> None:
    mixed = refused("antialias", whole=True, dims="1,3,h,w")
    mixed.graph.node[0].output[0] = "half"
    mixed.graph.node.append(node("Resize", ["half", "", "t"], ["y"], name="plain", mode="linear"))
    mixed.graph.initializer.append(tensor("t", floats(1, 1, 2, 2)))
    done = deployconv.rewrite(mixed, resample=True, bench=False, verify=False, target="sm89")
    assert [site.target_note.mark if site.target_note else None for site in done.sites] == [
        "needed",
        None,
    ]


@pytest.mark.parametrize("name", LAYERS)
def test_as_exported_and_rewritten(name: str) -> None:
    original = LAYERS[name]()
    assert_fails(build(original, *TARGETS), RECORD.fails(name, *TARGETS))
    done = deployconv.rewrite(original, bench=False)
    assert [site.certificate for site in done.sites] == ["exact"]
    assert done.model is not None
    fails = RECORD.fails(name, *TARGETS, rewritten=True)
    assert_fails(build(done.model, *TARGETS), fails)


def quantized(kind: int, zero_point: int) -> ModelProto:
    """x -> QuantizeLinear -> DequantizeLinear -> ConvTranspose."""
    proto = upsampler()
    proto.graph.node[0].input[0] = "back"
    for number, (op, source, target) in enumerate(
        (("QuantizeLinear", "x", "q"), ("DequantizeLinear", "q", "back"))
    ):
        proto.graph.node.insert(number, node(op, [source, "scale", "zero"], [target], name=op))
    scale, zero = (
        np.float32(0.5),
        np.array(zero_point, np.uint8 if kind == TensorProto.UINT8 else np.int8),
    )
    proto.graph.initializer.extend([tensor("scale", scale), tensor("zero", zero)])
    return proto


def with_integer_bias() -> ModelProto:
    proto = upsampler()
    bias = next(one for one in proto.graph.initializer if one.name == "b")
    bias.CopyFrom(tensor("bi", integers(3, dtype=np.int32)))
    proto.graph.initializer.append(tensor("scale", np.float32(0.5)))
    proto.graph.node.insert(0, node("DequantizeLinear", ["bi", "scale"], ["b"], name="bias"))
    return proto


def shuffled(kind: int) -> ModelProto:
    body = graph(
        [node("DepthToSpace", ["x"], ["y"], blocksize=2, name="shuffle")],
        [value("x", kind, [1, 4, 3, 3])],
        [value("y", kind, [1, 1, 6, 6])],
    )
    return model(body)


NOT_PARSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "uint8": (lambda: quantized(TensorProto.UINT8, 128), "QuantizeLinear"),
    "int8 with a zero point": (lambda: quantized(TensorProto.INT8, 5), "QuantizeLinear"),
    "int32 bias": (with_integer_bias, "bias"),
    "uint8 shuffle": (lambda: shuffled(TensorProto.UINT8), "shuffle"),
    "bool shuffle": (lambda: shuffled(TensorProto.BOOL), "shuffle"),
    "2-D output_shape, dynamic": (
        lambda: conv_transpose(
            integers(2, 3, 4, 4), ("h", "w"), strides=[2, 2], output_shape=[10, 12]
        ),
        "up",
    ),
}


@pytest.mark.parametrize("name", NOT_PARSED)
def test_what_the_parser_refuses(name: str) -> None:
    make, node_name = NOT_PARSED[name]
    report = build(make())
    assert_fails(report, RECORD.fails(name, "sm89"))
    assert {built.failure.node for built in report.targets if built.failure} == {node_name}


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.FLOAT])
def test_a_shuffle_that_it_takes(kind: int) -> None:
    assert build_one(shuffled(kind)).builds


def test_a_quantized_layer_builds_both_ways() -> None:
    proto = quantized(TensorProto.INT8, 0)
    assert build_one(proto).builds
    done = deployconv.rewrite(proto, bench=False)
    assert done.model is not None
    assert build_one(done.model).builds


def deconvolution(proto: ModelProto) -> PaddedLayer:
    (found,) = (one for one in build_one(proto).layers if one.kind == "deconvolution")
    return found


MISREAD: dict[str, dict[str, Any]] = {
    "output_shape": {"output_shape": [10, 12]},
    "SAME_UPPER with output_padding": {"auto_pad": "SAME_UPPER", "output_padding": [1, 1]},
}


@pytest.mark.parametrize("name", MISREAD)
def test_padding_that_the_importer_reads_otherwise(name: str) -> None:
    """ONNX cuts off (1, 0) along each axis; what the importer reads is recorded."""
    attributes = MISREAD[name]
    proto = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], **attributes)
    read = deconvolution(proto)
    if read.mode == "SAME_UPPER":  # the extra pixel at the end, output_padding forgotten
        assert attributes["output_padding"] == [1, 1]
    else:
        assert (read.pre_padding, read.post_padding) == tuple(
            zip(*RECORD.misread_pads[name], strict=True)
        )

    kept = deployconv.rewrite(proto, skip=["*"], bench=False)
    assert kept.model is not None
    said = deconvolution(kept.model)
    assert said.mode == "EXPLICIT_ROUND_DOWN"
    assert (said.pre_padding, said.post_padding) == ((1, 1), (0, 0))

    done = deployconv.rewrite(proto, bench=False)
    assert done.model is not None
    assert {one.kind for one in build_one(done.model).layers} == {"convolution"}


def test_a_bias_that_the_importer_leaves_out_on_the_border() -> None:
    proto = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], output_padding=[1, 1])
    proto.graph.node[0].input.append("sum")
    proto.graph.node.insert(0, node("Add", ["b", "b"], ["sum"]))
    proto.graph.initializer.append(tensor("b", integers(3)))
    assert deconvolution(proto).bias_at_run_time == RECORD.bias_left_out_on_the_border
    done = deployconv.rewrite(proto, bench=False)
    assert done.model is not None
    (layer_,) = build_one(done.model).layers
    assert (layer_.kind, layer_.bias_at_run_time) == ("convolution", False)


def test_same_padding_for_a_small_kernel_is_refused_as_ambiguous() -> None:
    """Runtimes disagree by a pixel, so what was meant is not known."""
    proto = conv_transpose(integers(2, 3, 2, 2), (16, 16), strides=[3, 3], auto_pad="SAME_UPPER")
    (site,) = deployconv.inspect(proto).sites
    assert site.reason is not None
    assert site.reason.code == "ambiguous-same-pads"
    assert deconvolution(proto).mode == "SAME_UPPER"
