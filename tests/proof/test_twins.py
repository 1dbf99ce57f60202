"""Unrounded models, and parity of quantized models that rests on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto

from deployconv.options import FeedOptions
from deployconv.proof.parity import check_parity
from deployconv.proof.twins import without_rounding
from deployconv.results import Parity
from tests.build import FLOAT, Array, graph, model, node, ops, run, tensor, value

UINT8 = onnx.TensorProto.UINT8
STEP = np.float32(0.125)
SHAPE = (1, 4, 5, 50)


def pair(x: str, y: str, scale: str = "scale", zero: str = "zero") -> list[NodeProto]:
    return [
        node("QuantizeLinear", [x, scale, zero], [f"{y}_int"]),
        node("DequantizeLinear", [f"{y}_int", scale, zero], [y]),
    ]


def network(
    nodes: Sequence[NodeProto], opset: int = 17, outputs: Sequence[str] = ("y",), **held: Any
) -> ModelProto:
    """``x`` -> nodes -> ``y``; the nodes may use scales and zero points by these names."""
    given = {
        **{"scale": STEP, "other": np.float32(0.25), "scales": np.full(4, STEP)},
        **{"zero": np.uint8(100), "zeros": np.full(4, 100, np.uint8), "signed": np.int8(-3)},
        **held,
    }
    used = {name for made in nodes for name in made.input}
    body = graph(
        nodes,
        [value("x", FLOAT, list(SHAPE))],
        [value(name, FLOAT if name == "y" else UINT8, list(SHAPE)) for name in outputs],
        [tensor(name, np.asarray(array)) for name, array in given.items() if name in used],
    )
    return model(body, opset)


def twin(made: ModelProto) -> ModelProto | None:
    serialized = without_rounding(made.SerializeToString())
    return None if serialized is None else onnx.load_model_from_string(serialized)


@pytest.mark.parametrize("opset", [10, 11, 13, 17, 19, 21])
@pytest.mark.parametrize(("zero", "low", "high"), [("zero", -100, 155), ("signed", -125, 130)])
def test_activations_saturate_and_are_rounded_no_more(
    opset: int, zero: str, low: int, high: int
) -> None:
    made = network([*pair("x", "t", zero=zero), node("Relu", ["t"], ["r"]), *pair("r", "y")], opset)
    smooth = twin(made)
    assert smooth is not None
    onnx.checker.check_model(smooth, full_check=True)
    assert ops(smooth) == {"Clip": 2, "Identity": 2, "Relu": 1}
    x = np.linspace(-30, 30, np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    found = run(smooth, {"x": x})["y"]
    expected = np.clip(np.maximum(np.clip(x, low * STEP, high * STEP), 0), 0, 155 * STEP)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - run(made, {"x": x})["y"]).max() <= STEP  # half a step from each


def in_a_body() -> ModelProto:
    quantize, dequantize = pair("x", "y")
    branches = {
        name: graph([node("DequantizeLinear", ["y_int", "scale", "zero"], [name])], [], [out])
        for name in ("then", "else")
        if (out := value(name, FLOAT, None))
    }
    chosen = node("If", ["yes"], ["z"], then_branch=branches["then"], else_branch=branches["else"])
    del dequantize
    done = node("Identity", ["z"], ["y"])
    return network([quantize, chosen, done], yes=np.array(True))


LEFT: dict[str, Callable[[], ModelProto]] = {
    "a weight": lambda: network(
        [*pair("w", "v"), node("Mul", ["x", "v"], ["y"])], w=np.float32(0.3)
    ),
    "one scale a channel": lambda: network(
        [
            node("QuantizeLinear", ["x", "scales", "zeros"], ["i"], axis=1),
            node("DequantizeLinear", ["i", "scales", "zeros"], ["y"], axis=1),
        ]
    ),
    "another scale after it": lambda: network(
        [
            node("QuantizeLinear", ["x", "scale", "zero"], ["i"]),
            node("DequantizeLinear", ["i", "other", "zero"], ["y"]),
        ]
    ),
    "integers that leave the graph": lambda: network(pair("x", "y"), outputs=("y", "y_int")),
    "integers that move": lambda: network(
        [
            node("QuantizeLinear", ["x", "scale", "zero"], ["i"]),
            node("Transpose", ["i"], ["t"]),
            node("DequantizeLinear", ["t", "scale", "zero"], ["y"]),
        ]
    ),
    "integers that a body reads": in_a_body,
    "nothing to round": lambda: network([node("Relu", ["x"], ["y"])]),
}


@pytest.mark.parametrize("build", LEFT.values(), ids=list(LEFT))
def test_what_is_not_a_pair_of_activations_stays(build: Callable[[], ModelProto]) -> None:
    assert twin(build()) is None


def test_the_file_is_read_as_well_as_the_bytes(tmp_path: Path) -> None:
    made = network(pair("x", "y"))
    onnx.save(made, tmp_path / "made.onnx")
    assert without_rounding(tmp_path / "made.onnx") == without_rounding(made.SerializeToString())
    assert without_rounding(tmp_path / "gone.onnx") is None
    assert without_rounding(b"no model") is None


# --- parity


def squashed(offset: float, scale: str = "scale") -> bytes:
    """The sum of ``x`` and ``offset``, rounded, in a layer whose output is not quantized."""
    nodes = [
        node("Add", ["x", "offset"], ["s"]),
        *pair("s", "t", scale),
        node("Sigmoid", ["t"], ["y"]),
    ]
    made = network(nodes, offset=np.float32(offset), coarse_scale=np.float32(4 * STEP))
    return made.SerializeToString()


def near_ties() -> Array:
    """Values far from the middle between two steps, but for one column just below it."""
    rng = np.random.default_rng(0)
    away = rng.uniform(-0.4, 0.4, SHAPE)
    away[..., 0] = 0.5 - 2e-5
    return ((rng.integers(-20, 20, SHAPE) + away) * STEP).astype(np.float32)


@pytest.fixture
def parity(tmp_path: Path) -> Callable[[bytes], Parity]:
    np.savez(tmp_path / "ties.npz", x=near_ties())
    feed = FeedOptions(inputs=tmp_path / "ties.npz")
    return lambda candidate: check_parity(squashed(0), candidate, feed=feed)


def test_a_rounding_that_went_the_other_way_is_no_difference(
    parity: Callable[[bytes], Parity],
) -> None:
    found = parity(squashed(4e-6))
    assert found.passed
    assert found.outputs[0].max_abs < 1e-5
    assert "compared without the rounding of activations" in str(found.note)
    assert "which moves elements of y by 0.0" in str(found.note)


@pytest.mark.parametrize("offset", [1e-3, float(STEP)], ids=["a little", "a step"])
def test_a_difference_that_no_rounding_explains_fails(
    parity: Callable[[bytes], Parity], offset: float
) -> None:
    found = parity(squashed(offset))
    assert not found.passed
    assert "without the rounding" not in str(found.note)


def test_a_larger_step_fails_though_it_saturates_equally(parity: Callable[[bytes], Parity]) -> None:
    assert not parity(squashed(0, "coarse_scale")).passed
