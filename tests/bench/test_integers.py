"""What is made of the rows of quantized models, and how they come about."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from bench import integers
from bench.integers import TABLE, Errors, Order, Row, measure
from bench.speed import QUICK, Speed
from bench.subjects import MODELS, Subject
from onnx import numpy_helper
from zoo.quantize import quantize, random_batches

SHAPES = {"x": (1, 24, 12, 12)}


def row(model: str, ratio: float, before: float = 0.02, after: float = 0.02) -> Row:
    speed = Speed(30, 1.0, 1.0 / ratio, ratio, ratio - 0.1, ratio + 0.1, (ratio, ratio))
    return Row(model, "all", 2, (), speed, Errors(before, after))


def test_the_summary_has_the_mean_and_the_largest_growth_of_the_error() -> None:
    (found,) = TABLE.summarise([row("a", 2.0), row("b", 8.0, 0.04, 0.05), row("c", 0.5, 0.1, 0.09)])
    assert (found["models"], found["slowest"]) == (3, "c")
    assert found["geometric_mean"] == pytest.approx(2.0)
    assert found["most_error"] == pytest.approx(1.25)
    assert "lowest 0.50 (c), error at most 1.250 times" in TABLE.summary_line(found)


def test_a_row_shows_both_errors() -> None:
    assert TABLE.line(row("a", 2.0, 0.0201, 0.0199)).endswith("  0.0201 -> 0.0199")
    assert TABLE.line(Row("a", "all", 2, error="gone")).endswith("  gone")


def test_in_markdown_the_error_stands_last() -> None:
    rows = [row("a", 2.0), row("b", 8.0, 0.04, 0.05)]
    assert list(TABLE.markdown([{"rows": [asdict(entry) for entry in rows]}])) == [
        "| model | original, ms | `all`, 2 threads | error against float |",
        "| --- | --- | --- | --- |",
        "| a | 1 | 2.00 | 0.0200 -> 0.0200 |",
        "| b | 1 | 8.00 | 0.0400 -> 0.0500 |",
        "| geometric mean, lowest | | **4.00**, from 2.00 | |",
    ]


@pytest.mark.parametrize("order", get_args(Order))
def test_both_orders_end_in_two_quantized_models(order: Order, tmp_path: Path) -> None:
    subject = Subject("subpixel_figure", SHAPES, MODELS / "subpixel_figure.onnx")
    found = measure(order, subject, "all", 1, QUICK, tmp_path)
    assert found.error is None
    assert found.speed is not None
    assert found.errors is not None
    # int8 keeps two digits, and is not float.
    assert 0.001 < found.errors.before < 0.1
    assert 0.001 < found.errors.after < 0.1
    after = "all.1" if order == "quantize, then rewrite" else "all.1.int8"
    for name in ("int8", after):
        path = tmp_path / f"subpixel_figure.{name}.onnx"
        operators = [node.op_type for node in onnx.load(path).graph.node]
        assert "QuantizeLinear" in operators
    assert not list(MODELS.glob("*.int8.onnx"))


def test_what_goes_wrong_is_a_row_of_its_own(tmp_path: Path) -> None:
    missing = Subject("gone", {}, tmp_path / "gone.onnx")
    found = measure("quantize, then rewrite", missing, "all", 1, QUICK, tmp_path)
    assert found.speed is None
    assert "gone.onnx" in str(found.error)


def test_the_error_is_relative_to_the_output(tmp_path: Path) -> None:
    """Two models whose only weight is 1 % and 2 % too large."""
    paths = []
    for scale in (1.0, 1.01, 1.02):
        model = onnx.load(MODELS / "subpixel_figure.onnx")
        (weight,) = (w for w in model.graph.initializer if len(w.dims) == 4)
        array = np.asarray(numpy_helper.to_array(weight) * scale, np.float32)
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
        paths.append(tmp_path / f"{scale}.onnx")
        onnx.save(model, paths[-1])
    errors = integers.compare(paths[0], (paths[1], paths[2]), SHAPES)
    assert errors.before == pytest.approx(0.01, rel=1e-3)
    assert errors.ratio == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("how", ["int8", "uint8", "symmetric"])
def test_quantizing_is_deterministic_and_leaves_its_model(how: str) -> None:
    model = onnx.load(MODELS / "subpixel_figure.onnx")
    before = model.SerializeToString(deterministic=True)
    batches = random_batches(SHAPES, seed=0, count=2)
    one, other = (quantize(model, batches, how) for _ in range(2))  # type: ignore[arg-type]
    assert model.SerializeToString(deterministic=True) == before
    assert one == other
    points = {
        numpy_helper.to_array(tensor).dtype.name
        for tensor in one.graph.initializer
        if "zero_point" in tensor.name and "weight" not in tensor.name
    }
    assert points == {"uint8" if how == "uint8" else "int8"}


def test_random_batches_are_seeded_and_differ() -> None:
    first, second = random_batches(SHAPES, seed=1, count=2)
    again, _ = random_batches(SHAPES, seed=1, count=2)
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], second["x"])
    assert first["x"].dtype == np.float32
