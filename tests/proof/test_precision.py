"""Which type an output is computed in, and that it is held against that type's tolerance."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from deployconv.proof.compare import compare_outputs
from deployconv.proof.parity import check_parity
from deployconv.proof.precision import coarse_types
from tests.build import rewrite


def parsed(body: str, outputs: str = "float y", inputs: str = "float[4] x") -> ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )


HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16

# The model, and the type behind each output that has a coarse one.
CASES = {
    "float32_alone": (parsed("y = Relu(x)"), {}),
    "cast_and_back": (
        parsed(f"a = Cast<to={HALF}>(x) b = Relu(a) y = Cast<to=1>(b)"),
        {"y": "float16"},
    ),
    "the_coarser_of_two": (
        parsed(f"a = Cast<to={HALF}>(x) b = Cast<to={BRAIN}>(a) y = Cast<to=1>(b)"),
        {"y": "bfloat16"},
    ),
    "another_output": (
        parsed(f"a = Cast<to={HALF}>(x) y = Cast<to=1>(a) z = Relu(x)", "float y, float z"),
        {"y": "float16"},
    ),
    "given_in_float16": (
        parsed("y = Cast<to=1>(x)", inputs="float16[4] x"),
        {"y": "float16"},
    ),
    "in_a_branch": (
        parsed(
            "y = If (c) <then_branch = t () => (float p)"
            f" {{ h = Cast<to={HALF}>(x) p = Cast<to=1>(h) }},"
            " else_branch = e () => (float q) { q = Relu(x) }>",
            inputs="float[4] x, bool c",
        ),
        {"y": "float16"},
    ),
}


@pytest.mark.parametrize(("model", "expected"), CASES.values(), ids=CASES)
def test_what_stands_behind_an_output(model: ModelProto, expected: dict[str, str]) -> None:
    assert coarse_types(model.SerializeToString()) == expected


def test_a_weight_counts_and_a_function_does() -> None:
    model = parsed("a = Cast<to=10>(x) b = Add(a, w) y = Cast<to=1>(b)")
    model.graph.node[0].attribute[0].i = TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.ones(4, np.float16), "w")
    model.graph.initializer.append(weight)
    assert coarse_types(model.SerializeToString()) == {"y": "float16"}

    steps = [helper.make_node("Cast", ["a"], ["b"], to=HALF)]
    opsets = [helper.make_opsetid("", 17)]
    model = parsed("y = Relu(x)")
    model.graph.node[0].CopyFrom(helper.make_node("Narrow", ["x"], ["y"], domain="local"))
    model.functions.append(helper.make_function("local", "Narrow", ["a"], ["b"], steps, opsets))
    assert coarse_types(model.SerializeToString()) == {"y": "float16"}


def test_what_cannot_be_read_has_none() -> None:
    assert coarse_types(b"\xff\xff") == {}


def test_the_tolerance_is_that_of_the_coarse_type_and_no_more() -> None:
    one = {"y": np.array([1.0, -2.0], np.float32)}
    for difference, passes in ((0.009, True), (0.011, False)):
        other = {"y": one["y"] + np.float32(difference)}
        assert not compare_outputs(one, other)[0].passed
        assert compare_outputs(one, other, coarse={"y": "float16"})[0].passed is passes


def converted() -> ModelProto:
    """Real weights in float16, inputs and outputs in float32, as converters leave it."""
    model = parsed(
        f"h = Cast<to={HALF}>(x) a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(h, w)"
        f" b = Relu(a) c = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(b, v) y = Cast<to=1>(c)",
        inputs="float[1,8,9,7] x",
    )
    rng = np.random.default_rng(3)
    for name in ("w", "v"):
        values = rng.standard_normal((8, 8, 4, 4)).astype(np.float16)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def test_a_converted_model_is_rewritten_and_the_report_says_what_it_was_held_against() -> None:
    done, _ = rewrite(converted())
    assert [site.certificate for site in done.sites] == ["exact", "exact"]
    assert done.parity is not None
    assert done.parity.passed
    assert "y float16" in (done.parity.note or "")


def test_a_wrong_weight_of_a_converted_model_does_not_pass() -> None:
    wrong = converted()
    values = onnx.numpy_helper.to_array(wrong.graph.initializer[1]).copy()
    values[0, 0, 0, 0] += 4
    wrong.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(values, "v"))
    both = (converted().SerializeToString(), wrong.SerializeToString())
    assert not check_parity(*both).passed
