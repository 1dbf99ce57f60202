"""Times of models."""

from __future__ import annotations

import pytest

from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from deployconv.proof import latency as latency_module
from deployconv.proof.latency import measure_latency
from deployconv.results import Latency
from deployconv.runtimes.blocks import Blocks
from tests.runtimes.tiny import FLOAT, unary
from tests.runtimes.tiny import upsampler as tiny_upsampler

Block = tuple[tuple[float, ...], ...]
"""The milliseconds of all runs of each model."""


def test_one_model() -> None:
    latency = measure_latency(tiny_upsampler().SerializeToString(), None, "ort", threads=1, runs=6)
    assert (latency.runs, latency.threads, latency.backend) == (6, 1, "ort")
    assert latency.provider == "CPUExecutionProvider"
    assert latency.runtime.startswith("onnxruntime ")
    assert latency.machine
    assert 0 < latency.before_ms.median <= latency.before_ms.p95
    assert latency.after_ms is None
    assert latency.ratio is None


def test_a_pair_with_a_given_shape() -> None:
    small = tiny_upsampler(shape=(1, 2, "h", "w")).SerializeToString()
    feed = FeedOptions(shapes={"x": (1, 2, 7, 9)})
    latency = measure_latency(small, small, "ort", feed, threads=1, runs=5)
    assert latency.after_ms is not None
    assert latency.ratio is not None
    assert latency.ratio > 0


def timed_in_blocks(monkeypatch: pytest.MonkeyPatch, *blocks: Block, load: float = 0.0) -> Latency:
    """The latency of a model beside itself if its blocks have these milliseconds."""
    monkeypatch.setattr(latency_module, "time_in_blocks", lambda *_, **__: Blocks(blocks))
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    blob = unary("Neg").SerializeToString()
    return measure_latency(blob, blob, "ort")


def test_the_ratio_is_above_one_if_the_second_model_is_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One pair was disturbed: the median of the paired ratios ignores it."""
    latency = timed_in_blocks(monkeypatch, ((4.0, 40.0, 4.0, 8.0), (2.0, 2.0, 2.0, 4.0)))
    assert latency.ratio == 2.0
    assert latency.after_ms is not None
    assert (latency.before_ms.median, latency.after_ms.median) == (6.0, 2.0)
    assert (latency.low, latency.high, latency.note) == (None, None, None)


def test_the_interval_is_that_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [((1.0 + at / 10,), (1.0,)) for at in range(6)]
    latency = timed_in_blocks(monkeypatch, *blocks)
    assert (latency.low, latency.ratio, latency.high) == (1.0, 1.25, 1.5)


@pytest.mark.parametrize(("load", "told"), [(0.0, False), (900.25, True)])
def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch, load: float, told: bool) -> None:
    latency = timed_in_blocks(monkeypatch, ((1.0,), (1.0,)), load=load)
    assert (latency.note is not None) is told
    if latency.note is not None:
        assert latency.note.startswith("the machine is busy: a load of 900.2 on ")


def test_models_of_different_interfaces_are_not_timed() -> None:
    one = unary("Neg", FLOAT, (1, 8)).SerializeToString()
    other = unary("Neg", FLOAT, (1, 9)).SerializeToString()
    with pytest.raises(UsageError, match="do not take the same input 'x'"):
        measure_latency(one, other, "ort")
