"""Whether the real parser and compiler take each kind of layer, as exported and rewritten.

The verdicts and texts are those of one version of tensorrt-rtx. With a version that nobody has
looked at, the tests are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

import deployconv
from deployconv.options import Form
from deployconv.results import BuildReport, PaddedLayer
from deployconv.runtimes.tensorrt.installation import find_installation
from tests.build import conv_transpose, graph, integers, model, node, tensor, upsampler, value
from tests.match.graphs import floats, parsed
from tests.runtimes.rtx import build, build_one, needs_rtx, words

pytestmark = needs_rtx

STRIDED_AND_DILATED = "build: .*Strided & Dilated Deconv are currently not supported"
NO_TYPES = "build: .*Could not infer output types for operation: .*deconv"
NO_3D_ON_TURING = "build: .*FP32 3D deconvolution is not supported"
INTEGER_BIAS = "parse: .*has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8"
NEGATIVE_PADS = "parse: .*TensorRT does not support negative pre-padding in the ConvTranspose"

SEEN_WITH = "tensorrt_rtx 1.7."


@pytest.fixture(autouse=True)
def known_version() -> None:
    runtime = find_installation("tensorrt-rtx").runtime
    if not runtime.startswith(SEEN_WITH):
        pytest.skip(f"verdicts and texts are those of {SEEN_WITH}x; {runtime} is not looked at yet")


def layer(kernel: tuple[int, ...], dtype: str = "float32", **attributes: Any) -> ModelProto:
    weight = integers(4, 4 // attributes.get("group", 1), *kernel).astype(np.dtype(dtype))
    return conv_transpose(weight, (5, 6, 4)[: len(kernel)], opset=22, **attributes)


@dataclass(frozen=True)
class Case:
    """A layer with the targets that refuse it as exported, and those that refuse it rewritten.

    Both are by target, with a pattern of the message.
    """

    make: Callable[[], ModelProto]
    fails: Mapping[str, str] = field(default_factory=dict)
    still_fails: Mapping[str, str] = field(default_factory=dict)


TARGETS = ("sm75", "sm86", "sm89", "sm120")


def everywhere(pattern: str) -> dict[str, str]:
    return dict.fromkeys(TARGETS, pattern)


CASES = {
    "2-D k4 s2": Case(lambda: layer((4, 4), strides=(2, 2), pads=(1, 1, 1, 1))),
    "2-D k2 s2": Case(lambda: layer((2, 2), strides=(2, 2))),
    "2-D grouped": Case(lambda: layer((4, 4), strides=(2, 2), group=2)),
    "2-D unequal strides": Case(lambda: layer((3, 5), strides=(3, 2))),
    "2-D float16": Case(lambda: layer((4, 4), "float16", strides=(2, 2))),
    "1-D": Case(lambda: layer((8,), strides=(4,), pads=(2, 2))),
    "3-D float32": Case(
        lambda: layer((2, 2, 2), strides=(2, 2, 2)),
        {"sm75": NO_3D_ON_TURING},
        {"sm75": "build: .*FP32 3D convolution is not supported"},
    ),
    "2-D dilation": Case(
        lambda: layer((3, 3), strides=(2, 2), dilations=(2, 2)), everywhere(STRIDED_AND_DILATED)
    ),
    "1-D dilation": Case(
        lambda: layer((3,), strides=(2,), dilations=(2,)), everywhere(STRIDED_AND_DILATED)
    ),
    "3-D dilation": Case(
        lambda: layer((3, 3, 3), strides=(2, 2, 2), dilations=(2, 2, 2)),
        {**everywhere(STRIDED_AND_DILATED), "sm75": NO_3D_ON_TURING},
        {"sm75": "build: .*FP32 3D convolution is not supported"},
    ),
    "bfloat16": Case(
        lambda: layer((4, 4), "bfloat16", strides=(2, 2), pads=(1, 1, 1, 1)),
        everywhere(NO_TYPES),
        {"sm75": "build: .*HW-specific datatypes: b16"},
    ),
    "1-D bfloat16": Case(
        lambda: layer((4,), "bfloat16", strides=(2,)),
        everywhere(NO_TYPES),
        {"sm75": "build: .*HW-specific datatypes: b16"},
    ),
    "int32 bias": Case(lambda: with_integer_bias(), everywhere(INTEGER_BIAS)),
    "1-D output_shape": Case(
        lambda: layer((4,), strides=(2,), output_shape=(10,)), everywhere(NEGATIVE_PADS)
    ),
}


RESIZES = {
    "antialias": ("antialias=1", 0.5, 18, "parse: .*Antialiasing is not supported currently"),
    "half_pixel_symmetric": (
        'coordinate_transformation_mode="half_pixel_symmetric"',
        1.5,
        19,
        "parse: .*transformationMode == ",
    ),
}


def refused(name: str, whole: bool, dims: str = "1,3,16,16") -> ModelProto:
    """A Resize of ``RESIZES``, by a whole factor if ``whole``."""
    attributes, factor, opset, _ = RESIZES[name]
    if whole and factor == 1.5:
        factor = 2.0  # a fraction has no phases
    body = f'y = Resize<mode="linear", {attributes}>(x, , s)'
    return parsed(body, {"s": floats(1, 1, factor, factor)}, dims, opset=opset)


@pytest.mark.parametrize("form", ["matrix", "polyphase"])
@pytest.mark.parametrize("name", RESIZES)
def test_an_interpolating_resize_that_is_refused_builds_in_another_form(
    name: str, form: Form
) -> None:
    original, refusal = refused(name, form == "polyphase"), RESIZES[name][-1]
    check(build(original, "sm89"), {"sm89": refusal})
    done = deployconv.rewrite(original, resample=True, bench=False, form=form, target="sm89")
    assert [(site.form, site.certificate) for site in done.sites] == [(form, "exact")]
    assert done.model is not None
    assert done.compiled is not None
    check(done.compiled.after, {})
    (site,) = done.sites
    assert site.target_note is not None
    assert (site.target_note.mark, site.target_note.targets) == ("needed", ("sm89",))
    assert re.match(refusal.removeprefix("parse: "), site.target_note.text.partition(": ")[2])


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


@pytest.mark.parametrize("name", CASES)
def test_as_exported_and_rewritten(name: str) -> None:
    case = CASES[name]
    check(build(case.make(), *TARGETS), case.fails)
    done = deployconv.rewrite(case.make(), bench=False)
    assert [site.certificate for site in done.sites] == ["exact"]
    assert done.model is not None
    check(build(done.model, *TARGETS), case.still_fails)


def check(report: BuildReport, fails: Mapping[str, str]) -> None:
    """The model fails for these targets, with these messages, and builds for all others."""
    assert {built.target for built in report.targets if not built.builds} == set(fails)
    for built in report.targets:
        if built.target in fails:
            assert re.match(fails[built.target], words(built)), words(built)


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


@pytest.mark.parametrize(
    ("make", "node_name", "text"),
    [
        (lambda: quantized(TensorProto.UINT8, 128), "QuantizeLinear", "Non-zero zero point is not"),
        (lambda: quantized(TensorProto.INT8, 5), "QuantizeLinear", "Non-zero zero point is not"),
        (with_integer_bias, "bias", "has type Int32 but must have type FP8, FP4, Int4, Int8, or U"),
        (lambda: shuffled(TensorProto.UINT8), "shuffle", "Found unsupported input type of UINT8"),
        (lambda: shuffled(TensorProto.BOOL), "shuffle", "Found unsupported input type of BOOL"),
        (
            lambda: conv_transpose(
                integers(2, 3, 4, 4), ("h", "w"), strides=[2, 2], output_shape=[10, 12]
            ),
            "up",
            "TensorRT does not support negative pre-padding in the ConvTranspose operator!",
        ),
    ],
    ids=["uint8", "int8", "int32 bias", "uint8 shuffle", "bool shuffle", "dynamic output_shape"],
)
def test_what_the_parser_refuses(make: Callable[[], ModelProto], node_name: str, text: str) -> None:
    built = build_one(make())
    assert built.failure is not None
    assert (built.failure.name, built.failure.node) == ("parse", node_name)
    assert text in (built.failure.reason or "")


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


@pytest.mark.parametrize("attributes", MISREAD.values(), ids=MISREAD)
def test_padding_that_the_importer_reads_otherwise(attributes: dict[str, Any]) -> None:
    """ONNX cuts off (1, 0) along each axis; the importer reads (0, 1), and says nothing."""
    proto = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], **attributes)
    read = deconvolution(proto)
    if read.mode == "SAME_UPPER":  # the extra pixel at the end, output_padding forgotten
        assert attributes["output_padding"] == [1, 1]
    else:
        assert (read.pre_padding, read.post_padding) == ((0, 0), (1, 1))

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
    assert deconvolution(proto).bias_at_run_time
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
