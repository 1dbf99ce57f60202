from __future__ import annotations

import pytest

from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from deployconv.proof import latency as latency_module
from deployconv.proof.latency import measure_latency
from tests.runtimes.tiny import FLOAT, unary, upsampler


def test_one_model() -> None:
    latency = measure_latency(upsampler().SerializeToString(), None, "ort", threads=1, runs=6)
    assert (latency.runs, latency.threads, latency.backend) == (6, 1, "ort")
    assert latency.provider == "CPUExecutionProvider"
    assert latency.runtime.startswith("onnxruntime ")
    assert latency.machine
    assert 0 < latency.before_ms.median <= latency.before_ms.p95
    assert latency.after_ms is None
    assert latency.ratio is None


def test_a_pair_with_a_given_shape() -> None:
    small = upsampler(shape=(1, 2, "h", "w")).SerializeToString()
    feed = FeedOptions(shapes={"x": (1, 2, 7, 9)})
    latency = measure_latency(small, small, "ort", feed, threads=1, runs=5)
    assert latency.after_ms is not None
    assert latency.ratio is not None
    assert latency.ratio > 0


def test_the_ratio_is_above_one_where_the_second_model_is_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One pair was disturbed: the median of the paired ratios forgets it."""
    monkeypatch.setattr(
        latency_module, "time_interleaved", lambda *_: [[4, 40, 4, 8], [2, 2, 2, 4]]
    )
    blob = unary("Neg").SerializeToString()
    latency = measure_latency(blob, blob, "ort")
    assert latency.ratio == 2.0
    assert latency.after_ms is not None
    assert (latency.before_ms.median, latency.after_ms.median) == (6.0, 2.0)


@pytest.mark.parametrize("runs", [0, -3])
def test_runs_must_be_positive(runs: int) -> None:
    with pytest.raises(UsageError, match="--runs"):
        measure_latency(b"", None, "ort", runs=runs)


def test_models_of_different_interfaces_are_not_timed() -> None:
    one = unary("Neg", FLOAT, (1, 8)).SerializeToString()
    other = unary("Neg", FLOAT, (1, 9)).SerializeToString()
    with pytest.raises(UsageError, match="do not take the same input 'x'"):
        measure_latency(one, other, "ort")
