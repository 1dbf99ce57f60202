"""Quantization steps and low-precision types of outputs, and what parity allows for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from deployconv.proof.compare import compare_outputs
from deployconv.proof.parity import check_parity
from deployconv.proof.tolerance import low_precision_types, quantization_steps
from tests.build import FLOAT, graph, model, node, rewrite, tensor, value
from tests.quantized import Activations, Layer, network, quantized


def with_tail(*ops: str) -> ModelProto:
    """The quantized network followed by layers of one input."""
    made = network(Layer(bias="none"))
    last = made.graph.output[0].name
    for number, op in enumerate(ops):
        made.graph.node.append(node(op, [last], [f"z{number}"]))
        last = f"z{number}"
    made.graph.output[0].CopyFrom(value(last, FLOAT, None))
    return made


STEPS = {
    "integers": (network(ends="integer"), {"up_int": 1.0}),
    "floats": (network(), {"y": 512.0}),
    "moved": (with_tail("Transpose", "Identity"), {"z1": 512.0}),
    "computed_on": (with_tail("Sigmoid"), {}),
    "moved_and_computed_on": (with_tail("Transpose", "Sigmoid"), {}),
    "never_on_a_grid": (quantized(), {}),
}


@pytest.mark.parametrize(("made", "steps"), STEPS.values(), ids=STEPS)
def test_the_step_of_an_output(made: ModelProto, steps: dict[str, float], tmp_path: Path) -> None:
    assert quantization_steps(made.SerializeToString()) == steps
    onnx.save(made, tmp_path / "made.onnx")
    assert quantization_steps(tmp_path / "made.onnx") == steps


def test_one_step_passes_and_two_do_not() -> None:
    reference = {"y": np.array([10, 20, 250], np.uint8)}
    for off, passed in ((0, True), (1, True), (2, False)):
        candidate = {"y": reference["y"] - np.uint8(off)}
        (verdict,) = compare_outputs(reference, candidate, steps={"y": 1.0})
        assert verdict.passed is passed
        assert (verdict.problem is None) is passed
        assert verdict.max_abs == off
        (strict,) = compare_outputs(reference, candidate)
        assert strict.passed is (off == 0)


def test_floats_of_a_grid_are_as_far_apart_as_its_step() -> None:
    reference = {"y": np.array([0.3, 0.6], np.float32)}
    candidate = {"y": np.array([0.6, 0.6], np.float32)}
    (verdict,) = compare_outputs(reference, candidate, steps={"y": 0.3})
    assert verdict.passed
    (verdict,) = compare_outputs(reference, candidate, steps={"y": 0.2})
    assert not verdict.passed


def shifted(by: float) -> ModelProto:
    """x -> (x + by) -> QuantizeLinear of step 1 -> y."""
    body = graph(
        [
            node("Add", ["x", "by"], ["t"]),
            node("QuantizeLinear", ["t", "scale", "zero"], ["y"]),
        ],
        [value("x", FLOAT, [64])],
        [value("y", onnx.TensorProto.INT8, [64])],
        [
            tensor("by", np.float32(by)),
            tensor("scale", np.float32(0.05)),
            tensor("zero", np.int8(0)),
        ],
    )
    return model(body)


@pytest.mark.parametrize(("by", "passed"), [(0.0, True), (0.02, True), (0.2, False)])
def test_parity_of_integers_says_what_it_tolerated(by: float, passed: bool) -> None:
    parity = check_parity(shifted(0.0).SerializeToString(), shifted(by).SerializeToString())
    assert parity.passed is passed
    assert ("one step" in (parity.note or "")) is (by > 0)


def test_an_equal_model_needs_no_note() -> None:
    made = network(Layer(bias="none"), Activations(), ends="integer").SerializeToString()
    assert check_parity(made, made).note is None


def parsed(body: str, outputs: str = "float y", inputs: str = "float[4] x") -> ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )


HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16

# The model, and the type used for each output that has a low-precision one.
CASES = {
    "float32_alone": (parsed("y = Relu(x)"), {}),
    "cast_and_back": (
        parsed(f"a = Cast<to={HALF}>(x) b = Relu(a) y = Cast<to=1>(b)"),
        {"y": "float16"},
    ),
    "the_less_precise_of_two": (
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
def test_types_used_for_an_output(model: ModelProto, expected: dict[str, str]) -> None:
    assert low_precision_types(model.SerializeToString()) == expected


def test_a_weight_counts_and_a_function_does() -> None:
    model = parsed("a = Cast<to=10>(x) b = Add(a, w) y = Cast<to=1>(b)")
    model.graph.node[0].attribute[0].i = TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.ones(4, np.float16), "w")
    model.graph.initializer.append(weight)
    assert low_precision_types(model.SerializeToString()) == {"y": "float16"}

    steps = [helper.make_node("Cast", ["a"], ["b"], to=HALF)]
    opsets = [helper.make_opsetid("", 17)]
    model = parsed("y = Relu(x)")
    model.graph.node[0].CopyFrom(helper.make_node("Narrow", ["x"], ["y"], domain="local"))
    model.functions.append(helper.make_function("local", "Narrow", ["a"], ["b"], steps, opsets))
    assert low_precision_types(model.SerializeToString()) == {"y": "float16"}


def test_what_cannot_be_read_has_none() -> None:
    assert low_precision_types(b"\xff\xff") == {}


def test_the_tolerance_is_that_of_the_low_precision_type_and_no_more() -> None:
    one = {"y": np.array([1.0, -2.0], np.float32)}
    for difference, passes in ((0.009, True), (0.011, False)):
        other = {"y": one["y"] + np.float32(difference)}
        assert not compare_outputs(one, other)[0].passed
        assert compare_outputs(one, other, types={"y": "float16"})[0].passed is passes


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
