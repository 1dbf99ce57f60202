"""The command line that the benchmarks share."""

from __future__ import annotations

import pytest
from bench import command
from bench.integers import benchmark
from bench.subjects import float_samples


def test_a_name_that_no_model_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = benchmark("Measures.", {"samples": float_samples}, ("all",), "rewrite, then quantize")
    monkeypatch.setattr("sys.argv", ["bench", "--only", "nothing", "--only", "neither"])
    assert command.main(asked) == 2
    assert capsys.readouterr() == ("", "no model is called nothing or neither\n")
