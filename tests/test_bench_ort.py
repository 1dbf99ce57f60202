"""The benchmark runs and says what it found; its figures are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bench_ort
import pytest
from bench.memory import Memory
from bench.speed import QUICK, Speed
from bench.subjects import MODELS, Subject, samples
from bench_ort import Row, line, summarise

ROOT = Path(__file__).resolve().parent.parent


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_ort.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_one_small_model(tmp_path: Path) -> None:
    name, report = "dilated_upsampler", tmp_path / "bench.json"
    asked = ("--policy", "all", "--threads", "1", "--runs", "1", "--json", str(report))
    done = bench("--only", name, *asked)
    assert done.returncode == 0, done.stderr
    document = json.loads(report.read_text(encoding="utf-8"))
    assert list(document) == [
        *("schema_version", "tool", "machine", "runtime", "effort", "rows", "summary"),
    ]
    assert document["runtime"].startswith("onnxruntime ")
    (row,) = document["rows"]
    assert (row["model"], row["policy"], row["threads"], row["error"]) == (name, "all", 1, None)
    assert [site["certificate"] for site in row["sites"]] == ["exact", "exact"]
    speed = row["speed"]
    assert speed["runs"] == 1
    assert speed["ratio"] == pytest.approx(speed["before_ms"] / speed["after_ms"])
    assert speed["quartiles"] == [speed["low"], speed["high"]] == [speed["ratio"]] * 2
    assert min(row["memory"].values()) > 0
    (summary,) = document["summary"]
    assert summary["models"] == 1
    assert summary["geometric_mean"] == pytest.approx(speed["ratio"])
    assert summary["slowest"] == name
    assert name in done.stdout


def test_a_name_that_no_model_has() -> None:
    done = bench("--only", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no model is called nothing" in done.stderr


def test_what_goes_wrong_is_a_row_of_its_own(tmp_path: Path) -> None:
    missing = Subject("gone", {}, tmp_path / "gone.onnx")
    row = bench_ort.measure(missing, "all", 1, QUICK, tmp_path)
    assert row.speed is None
    assert row.error is not None
    assert "no such file" in row.error
    assert "no such file" in line(row)
    assert list(summarise([row])) == []


def row(model: str, ratio: float, threads: int = 2, memory: int = 100) -> Row:
    speed = Speed(30, 1.0, 1.0 / ratio, ratio, ratio - 0.1, ratio + 0.1, (ratio, ratio))
    return Row(model, "fastest", threads, (), speed, Memory(100, memory))


def test_the_summary_has_the_mean_and_the_worst() -> None:
    rows = [row("a", 2.0, memory=110), row("b", 0.5), row("c", 8.0), row("a", 3.0, threads=1)]
    two, one = summarise(rows)
    assert (two["threads"], two["models"], one["threads"], one["models"]) == (2, 3, 1, 1)
    assert two["geometric_mean"] == pytest.approx(2.0)
    assert (two["lowest"], two["slowest"]) == (0.5, "b")
    assert two["most_memory"] == pytest.approx(1.1)
    assert "geometric mean 2.00, lowest 0.50 (b), peak memory at most 1.10" in (
        bench_ort.summary_line(two)
    )


def test_every_sample_is_there() -> None:
    names = [subject.name for subject in samples()]
    assert len(names) == len(set(names)) == len(list(MODELS.glob("*.onnx")))
