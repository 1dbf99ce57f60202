"""Every way to write a shuffle makes the same; its times are not looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench_shuffle import Layout, measure, ways

from deployconv.restrictions import ChannelOrder

LAYOUT = Layout(3, (2, 2), (4, 6), ((0, 0),) * 2, 1, 18, "float32")


@pytest.mark.parametrize("stride", [2, 3])
def test_all_ways_agree(stride: int) -> None:
    layout = replace(LAYOUT, stride=(stride,) * 2)
    found = measure(layout, threads=1, seconds=0.01)
    written = ["col2im", "two-step", "dcr", "crd", "transpose"]
    assert list(found) == ["copy", *written, "Concat", "Gather"]
    assert min(found.values()) > 0


def test_a_way_that_makes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    other: dict[ChannelOrder, ChannelOrder] = {"CRD": "DCR", "DCR": "CRD"}
    exchanged = [replace(way, channel_order=other[way.channel_order]) for way in ways(LAYOUT)]
    monkeypatch.setattr("bench_shuffle.ways", lambda layout: exchanged)
    with pytest.raises(ValueError, match="makes something else than"):
        measure(LAYOUT, threads=1, seconds=0.01)
