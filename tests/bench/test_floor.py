"""The floor: what is counted, at rates that are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bench.floor import Rates, floor_of, measure_rates

import deployconv
from tests.build import FLOAT, graph, integers, model, node, tensor, value

RATES = Rates(threads=2, matmul=1e6, conv=0.5, bytes={1024: 100.0, 4096: 50.0})


@pytest.mark.parametrize(
    ("amount", "ms"), [(512, 5.12), (2048, 20.48), (8191, 81.91), (8192, 163.84)]
)
def test_a_copy_is_as_fast_as_one_of_no_more_bytes(amount: int, ms: float) -> None:
    assert RATES.copy_ms(amount) == pytest.approx(ms)


def test_repeated_pixels_need_no_multiplications(tmp_path: Path) -> None:
    """Nearest Resize x2, Conv 3x3: 16 of 36 multiplications for an input pixel are needed."""
    body = graph(
        [
            node("Resize", ["x", "", "scales"], ["a"], mode="nearest"),
            node("Conv", ["a", "w"], ["y"], pads=[1] * 4),
        ],
        [value("x", FLOAT, [1, 2, 8, 8])],
        [value("y", FLOAT, None)],
        [
            tensor("w", integers(3, 2, 3, 3)),
            tensor("scales", np.array([1, 1, 2, 2], np.float32)),
        ],
    )
    original, rewritten = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(model(body), original)
    deployconv.rewrite(original, output=rewritten, bench=False)
    kept = floor_of(original, original, {"x": (1, 2, 8, 8)}, RATES)
    assert kept.before.macs == kept.after.macs == 6 * 36 * 64
    # The smallest kernel is one row and one column larger than the image needs.
    assert kept.macs == 6 * 16 * 81
    changed = floor_of(original, rewritten, {"x": (1, 2, 8, 8)}, RATES)
    assert changed.after.macs == changed.macs == kept.macs
    assert changed.ms == kept.ms
    assert kept.multiply_ms == pytest.approx(kept.macs / 1e6)
    assert kept.ms == max(kept.multiply_ms, kept.copy_ms)


def test_rates_are_measured() -> None:
    rates = measure_rates(1)
    assert rates.threads == 1
    assert rates.macs == max(rates.matmul, rates.conv)
    assert min(rates.matmul, rates.conv) > 0
    assert all(rate > 0 for rate in rates.bytes.values())
