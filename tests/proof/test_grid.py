"""How far apart two right results of a quantized model can lie, and no further."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from deployconv.proof.compare import compare_outputs
from deployconv.proof.grid import output_steps
from deployconv.proof.parity import check_parity
from tests.build import FLOAT, graph, model, node, tensor, value
from tests.quantized import Activations, Layer, network, quantized


def with_tail(*ops: str) -> ModelProto:
    """The quantized network with layers of one input behind it."""
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
    assert output_steps(made.SerializeToString()) == steps
    onnx.save(made, tmp_path / "made.onnx")
    assert output_steps(tmp_path / "made.onnx") == steps


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
