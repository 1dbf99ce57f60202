"""What the benchmark of the search makes of its measurements; nothing is timed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bench_search
import pytest
from bench import search
from bench.search import Call, Noise, Outcome, Ratio, Row, compare, measure_noise

from tests.report.samples import LATENCY


def row(model: str, cost: float, fastest: float, high: float = 1.1, overshoot: float = -3.0) -> Row:
    outcomes = {
        "cost": Outcome(2.0, Ratio(cost, 1.0, 2.0), Ratio(fastest / cost, 0.9, high)),
        "fastest": Outcome(12.0, Ratio(fastest, 1.0, 1e9)),
    }
    return Row(model, 5.0, outcomes, overshoot)


ROWS = [asdict(one) for one in (row("a", 1.0, 2.0), row("b", 4.0, 2.0, 0.7, 1.0))]
FAILED = asdict(Row("c", error="gone"))


def test_the_summary_has_the_means_and_what_should_not_be() -> None:
    assert bench_search.summary([*ROWS, FAILED]) == {
        "models": 2,
        "geometric_mean": pytest.approx({"cost": 2.0, "fastest": 2.0}),
        "mean_seconds": {"cost": 2.0, "fastest": 12.0},
        "fastest_is_slower_than": {"cost": ["b"]},
        "beyond_budget": ["b"],
    }
    assert bench_search.summary([FAILED]) == {}


def test_the_tables() -> None:
    noise = asdict(Noise(True, 100, 2, 60, 0.5, 1.4, 0.0512, 3.21))
    rows = [*ROWS, FAILED]
    document: dict[str, Any] = {"noise": [noise], "rows": rows}
    document["summary"] = bench_search.summary(rows)
    assert list(bench_search.markdown(document)) == [
        "| | timings | claims | claims of a fixed 2 % | ratios | width | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| with a busy neighbour | 100 | 2 | 60 | 0.50 to 1.40 | 0.051 | 3.2 |",
        "",
        "| model | original, ms | `cost`, s | `cost` | `fastest`, s | `fastest` |"
        " `fastest` / `cost` |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| a | 5 | 2.0 | 1.00 (1.00 to 2.00) | 12.0 | 2.00 (1.00 to 99.00) | 2.00 (0.90 to 1.10) |",
        "| b | 5 | 2.0 | 4.00 (1.00 to 2.00) | 12.0 | 2.00 (1.00 to 99.00) | 0.50 (0.90 to 0.70) |",
        "| geometric mean; mean of the seconds |  | 2.0 | **2.00** | 12.0 | **2.00** | 1.00 |",
        "",
        "`fastest` is slower than `cost` beyond the interval: b",
        "beyond 1.5 times the budget and one run: b",
    ]


def test_claims_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([(0.9, 1.01, 1.1), (1.01, 1.05, 1.1), (0.8, 0.9, 0.99), (0.9, 1.03, 1.1)])

    def latency(*_: object, **__: object) -> object:
        low, ratio, high = next(found)
        return replace(LATENCY, low=low, ratio=ratio, high=high)

    monkeypatch.setattr(search, "measure_latency", latency)
    noise = measure_noise([(Path("a.onnx"), {}), (Path("b.onnx"), {})], True, 4, 2.0, 2)
    assert (noise.timings, noise.claims, noise.fixed) == (4, 2, 3)
    assert (noise.lowest, noise.highest) == (0.9, 1.05)


def test_what_goes_wrong_is_a_row_of_its_own(tmp_path: Path) -> None:
    calls = [Call("cost", ("--policy", "cost"))]
    found = compare("gone", tmp_path / "gone.onnx", {}, 1, calls, 1.0, tmp_path)
    assert found.error is not None
    assert "gone.onnx" in found.error
