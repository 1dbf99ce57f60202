"""What the attributes of a ConvTranspose leave open, and which nodes are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, helper, numpy_helper

import deployconv
from deployconv.errors import ModelError
from tests.build import (
    FLOAT,
    Array,
    Feeds,
    assert_equal,
    assert_rewritten,
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    reasons,
    rewrite,
    run,
    run_reference,
    tensor,
    upsampler,
    value,
)


def layer(kernel: int, **attributes: Any) -> ModelProto:
    """A ConvTranspose from 2 to 3 channels with a bias, of stride 2 unless stated."""
    weight = integers(2, 3, kernel, kernel)
    return conv_transpose(weight, (4, 5), integers(3, seed=1), **{"strides": [2, 2], **attributes})


# --- attributes


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_missing_attributes_have_their_defaults(rank: int) -> None:
    after = assert_rewritten(conv_transpose(integers(2, 3, *[3] * rank), (5, 6, 4)[:rank]))
    assert [proto.op_type for proto in after.graph.node] == ["Conv"]


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID"])
def test_without_padding(auto_pad: str) -> None:
    assert_rewritten(layer(3, auto_pad=auto_pad))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("output_padding", [0, 1])
def test_same_padding_as_both_implementations_compute_it(
    auto_pad: str, kernel: int, output_padding: int
) -> None:
    original = layer(kernel, auto_pad=auto_pad, output_padding=[output_padding] * 2)
    after = assert_rewritten(original)
    feeds = feeds_for(original)
    assert_equal(run_reference(original, feeds), run(after, feeds))


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("shape", [[8, 10], [7, 9], [9, 8], [6, 11], [10, 12]])
def test_output_shape_as_onnxruntime_computes_it(auto_pad: str, shape: list[int]) -> None:
    assert_rewritten(layer(4, auto_pad=auto_pad, output_shape=shape))


def test_output_shape_longer_than_the_taps_reach_is_bias_there() -> None:
    assert_rewritten(layer(2, output_shape=[9, 10]))


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"auto_pad": "SAME_UPPER", "strides": [4, 4]}, "ambiguous-same-pads"),
        ({"auto_pad": "SAME_LOWER", "strides": [4, 4]}, "ambiguous-same-pads"),
        ({"auto_pad": "SAME_UPPER", "pads": [1, 1, 1, 1]}, "ambiguous-same-pads"),
        ({"output_shape": [14, 16]}, "ambiguous-output-shape"),
        ({"output_shape": [9, 11], "output_padding": [1, 1]}, "ambiguous-output-shape"),
    ],
)
def test_what_runtimes_read_differently_is_refused(attributes: dict[str, Any], code: str) -> None:
    original = layer(3, **attributes)
    assert reasons(original, verify=False) == [code]


@pytest.mark.parametrize(
    ("pads", "extra", "meant"),
    [
        ([0, 1, -1, -1], [0, 0], "pads [0, 1, 0, 0] and output_padding [1, 1] mean the same"),
        ([0, 0, 0, -1], [1, 0], "pads [0, 0, 0, 0] and output_padding [1, 1] mean the same"),
        ([-1, 0, 0, 0], [0, 0], "pads [0, 0, 0, 0] and a Pad by [1, 0, 0, 0] after it"),
        ([0, 0, -2, 0], [0, 0], "pads [0, 0, 0, 0] and a Pad by [0, 0, 2, 0] after it"),
    ],
)
def test_negative_pads_are_refused_with_what_they_mean(
    pads: list[int], extra: list[int], meant: str
) -> None:
    """onnxruntime refuses them. The ONNX reference evaluator computes what the reason says."""
    original = layer(3, pads=pads, output_padding=extra)
    (site,) = deployconv.inspect(original).sites
    assert site.reason is not None
    assert site.reason.code == "negative-pads"
    assert meant in site.reason.text
    allowed = [max(pad, 0) for pad in pads]
    given = feeds_for(original)
    values = run_reference(original, given)["y"]
    if "output_padding" in meant:
        same = layer(3, pads=allowed, output_padding=[1, 1])
        np.testing.assert_array_equal(run_reference(same, given)["y"], values)


@pytest.mark.parametrize("sizes", [(None, 5), ("h", "w"), (4, None)])
def test_output_shape_needs_static_sizes(sizes: tuple[Any, ...]) -> None:
    original = upsampler(sizes, pads=[0] * 4, output_shape=[8, 10])
    assert reasons(original, verify=False) == ["dynamic-output-shape"]


@pytest.mark.parametrize("shape", [[1, 3, 8, 10], [8, 10], [8]])
def test_output_shape_of_any_length_where_the_rank_is_not_known(shape: list[int]) -> None:
    """Runtimes take it with batch and channels there; the other layers are rewritten."""
    original = upsampler((4, 5), pads=[0] * 4, output_shape=shape)
    original.graph.input[0].type.tensor_type.ClearField("shape")
    original.graph.node.append(node("ConvTranspose", ["y", "v"], ["z"], name="next"))
    original.graph.initializer.append(tensor("v", integers(3, 2, 2, 2)))
    original.graph.output[0].name = "z"
    statuses = [
        (site.status, site.reason and site.reason.code)
        for site in deployconv.inspect(original).sites
    ]
    assert statuses == [("skipped", "dynamic-output-shape"), ("rewritten", None)]


def test_output_shape_with_a_dynamic_batch() -> None:
    assert_rewritten(upsampler((4, 5), batch=None, pads=[0] * 4, output_shape=[8, 10]))


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"strides": [2]}, "'strides' has 1 values, not 2"),
        ({"strides": [0, 2]}, r"'strides' is \[0, 2\], below 1"),
        ({"pads": [1, 1]}, "'pads' has 2 values, not 4"),
        ({"dilations": [1, 1, 1]}, "'dilations' has 3 values, not 2"),
        ({"kernel_shape": [3, 3]}, r"'kernel_shape' is \[3, 3\], its weight's \[4, 4\]"),
        ({"group": 3}, "'group' is 3 for 2"),
        ({"auto_pad": "SAME"}, "'auto_pad' is 'SAME'"),
    ],
)
def test_attributes_that_no_runtime_takes(attributes: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what) as raised:
        deployconv.inspect(layer(4, **attributes))
    assert "\n" not in str(raised.value)


# --- operands


@pytest.mark.parametrize(("missing", "code"), [("w", "runtime-weight"), ("b", "runtime-bias")])
def test_an_operand_that_arrives_at_run_time_is_a_reason(missing: str, code: str) -> None:
    original = upsampler()
    (initializer,) = (t for t in original.graph.initializer if t.name == missing)
    original.graph.input.append(value(missing, FLOAT, list(initializer.dims)))
    original.graph.initializer.remove(initializer)
    assert reasons(original) == [code]


def test_a_weight_that_is_computed_from_an_input_is_a_reason() -> None:
    original = upsampler()
    original.graph.node.insert(0, node("Mul", ["w", "gain"], ["scaled"]))
    original.graph.node[1].input[1] = "scaled"
    original.graph.input.append(value("gain", FLOAT, [1]))
    assert reasons(original) == ["runtime-weight"]


def test_no_runtime_has_four_spatial_axes() -> None:
    assert reasons(conv_transpose(integers(1, 1, 2, 2, 2, 2), (3,) * 4), verify=False) == [
        "unsupported-rank"
    ]


def test_a_left_out_bias_is_none() -> None:
    original = conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2])
    original.graph.node[0].input.append("")
    assert_rewritten(original)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_element_types_that_the_operator_has_not(dtype: Any) -> None:
    original = conv_transpose(integers(2, 3, 4, 4, dtype=dtype), (4, 5))
    assert reasons(original, verify=False) == ["unsupported-dtype"]


# --- element types


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("form", ["crop", "pad", "split"])
def test_element_type_is_kept_and_every_weight_copied(dtype: Any, form: str) -> None:
    weight, bias = integers(2, 3, 4, 4).astype(dtype), integers(3, seed=1).astype(dtype)
    original = conv_transpose(weight, (5, 6), bias, opset=22, strides=[2, 2], pads=[1] * 4)
    original.ir_version = 10

    done, after = rewrite(original, form=form)

    assert [site.certificate for site in done.sites] == ["exact"]
    assert done.parity is not None
    assert done.parity.passed
    assert after.graph.output == original.graph.output
    kernels = [numpy_helper.to_array(t) for t in after.graph.initializer if len(t.dims) == 4]
    placed = np.concatenate([kernel.ravel() for kernel in kernels])
    assert placed.dtype == dtype
    padding = placed.size - weight.size
    assert sorted(placed.ravel().tolist()) == sorted(weight.ravel().tolist() + [0.0] * padding)


@pytest.mark.parametrize(
    ("dtype", "execute"),
    [(np.float16, run), (np.float64, run_reference)],  # onnxruntime has no float64 Conv
    ids=["float16", "float64"],
)
def test_other_floats_compute_what_the_reference_does(
    dtype: Any, execute: Callable[[ModelProto, Feeds], dict[str, Array]]
) -> None:
    weight, bias = integers(2, 3, 4, 4).astype(dtype), integers(3, seed=1).astype(dtype)
    original = conv_transpose(weight, (5, 6), bias, opset=22, strides=[2, 2], pads=[1] * 4)
    _, after = rewrite(original)
    feeds = feeds_for(original)
    assert_equal(run_reference(original, feeds), execute(after, feeds))


def test_bfloat16_is_compared_as_float32_and_says_so() -> None:
    weight = integers(2, 3, 4, 4).astype(ml_dtypes.bfloat16)
    done, _ = rewrite(conv_transpose(weight, (5, 6), opset=22, ir_version=10, strides=[2, 2]))
    assert done.parity is not None
    assert done.parity.note is not None
    assert done.parity.note.startswith("compared as float32 twins")


# --- functions


def function_model(*attributes: Any, **given: Any) -> ModelProto:
    """A local function around one ConvTranspose with Constant weights."""
    site = node("ConvTranspose", ["a", "w"], ["c"], name="up")
    site.attribute.extend(attributes)
    weight = numpy_helper.from_array(integers(2, 3, 4, 4), "w")
    function = helper.make_function(
        "local",
        "Up",
        ["a"],
        ["c"],
        [node("Constant", [], ["w"], value=weight), site],
        [helper.make_opsetid("", 17)],
        attributes=list(given),
    )
    body = graph(
        [node("Up", ["x"], ["y"], name="call", domain="local", **given)],
        [value("x", FLOAT, [1, 2, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
    )
    return model(body, domains=["local"], functions=[function])


def test_a_site_in_a_function() -> None:
    after = assert_rewritten(function_model(helper.make_attribute("strides", [2, 2])))
    # Functions have no initializers: a weight that only they read stays a node there.
    assert not after.graph.initializer
    assert {"Constant", "Conv", "DepthToSpace"} <= {n.op_type for n in after.functions[0].node}


def test_attributes_that_are_parameters_of_the_function() -> None:
    reference = AttributeProto(name="strides", type=AttributeProto.INTS, ref_attr_name="s")
    assert reasons(function_model(reference, s=[2, 2])) == ["attribute-reference"]
