"""The benchmark runs and says what it found; its figures are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bench_ort
import pytest
from bench.floor import Rates
from bench.speed import QUICK
from bench.subjects import MODELS, Subject, samples
from bench.table import TABLE

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
        *("schema_version", "tool", "machine", "runtime", "effort", "rates", "rows"),
        "summary",
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
    floor = row["floor"]
    assert 0 < floor["macs"] <= min(floor["before"]["macs"], floor["after"]["macs"])
    assert floor["ms"] == max(floor["multiply_ms"], floor["copy_ms"])
    assert 0 < row["share"]["time"] < 1
    assert 0 < row["moving"] < 1
    assert 1 <= row["limit"] <= 1 / (1 - row["share"]["time"])
    assert [rate["threads"] for rate in document["rates"]] == [1]
    (summary,) = document["summary"]
    assert summary["models"] == 1
    assert summary["geometric_mean"] == pytest.approx(speed["ratio"])
    assert summary["slowest"] == name
    assert name in done.stdout
    table = bench("--table", str(report))
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[2].startswith(f"| {name} | ")


def test_what_goes_wrong_is_a_row_of_its_own(tmp_path: Path) -> None:
    missing = Subject("gone", {}, tmp_path / "gone.onnx")
    rates = Rates(threads=1, matmul=1.0, conv=0.5, bytes={1: 1.0})
    row = bench_ort.measure(missing, "all", rates, QUICK, tmp_path)
    assert row.speed is None
    assert row.error is not None
    assert "no such file" in row.error
    assert "no such file" in TABLE.line(row)
    assert list(TABLE.summarise([row])) == []


def test_every_sample_is_there() -> None:
    names = [subject.name for subject in samples()]
    assert len(names) == len(set(names)) == len(list(MODELS.glob("*.onnx")))
