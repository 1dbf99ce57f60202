"""Variants are proved once and timed as asked; how long that may take follows from a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import ModelProto

from deployconv.errors import CheckFailed
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import Certified
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.emit import Emitter
from deployconv.search import workbench
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, TunerOptions
from deployconv.search.workbench import Workbench
from tests.build import conv_transpose, integers
from tests.search.conftest import Track, by_operator, left
from tests.search.nets import net, pair, up

COL2IM, DCR = Choice("crop", "col2im"), Choice("crop", "dcr")


def bench_of(proto: ModelProto, budget: float = 60.0) -> Workbench:
    options = RewriteOptions(policy="fastest")
    tuner = TunerOptions(budget=budget, cache=False)
    candidates = Candidates.of(load(proto), options)
    return Workbench.of(candidates, proto.SerializeToString(), tuner)


def test_sets_of_choices_race_each_other(track: Track) -> None:
    track.cost = by_operator(ConvTranspose=3.0, Col2Im=1.0)
    large, both = {"main/large": COL2IM}, {"main/large": COL2IM, "main/small": COL2IM}
    timings = bench_of(pair()).race([{}, large, both], 5.0)
    assert [[left(proto) for proto in race] for race in track.races] == [
        [{"small", "large"}, {"small"}, frozenset()]
    ]
    assert [timing.ratio for timing in timings] == pytest.approx([1.0, 7 / 5, 7 / 3])


def test_the_original_itself_may_take_part(track: Track) -> None:
    bench_of(net(up("x", "y", "up"))).race([None, {"main/up": COL2IM}], 5.0)
    assert [left(proto) for proto in track.finals] == [frozenset()]


def test_each_form_is_certified_once(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    certified: list[str | None] = []
    real = workbench.certify

    def certify(rewrite: Rewrite, name: str, seed: int) -> Certified:
        certified.append(rewrite.summary.shuffle)
        return real(rewrite, name, seed)

    monkeypatch.setattr(workbench, "certify", certify)
    bench = bench_of(net(up("x", "y", "up")))
    for choice in (COL2IM, DCR, COL2IM):
        bench.race([{}, {"main/up": choice}], 5.0)
    assert certified == ["col2im", "dcr"]


@pytest.mark.parametrize(
    ("takes", "comparison", "telling", "left"),
    [(0.001, 3.0, 1.0, 57.0), (0.1, 3.0, 2.6, 56.7), (1.0, 14.0, 26.0, 43.0)],
    ids=["short", "longer", "long"],
)
def test_comparisons_last_as_long_as_runs_ask_for(
    track: Track, takes: float, comparison: float, telling: float, left: float
) -> None:
    """The original ran three times, and a last comparison is kept time for."""
    track.takes = takes
    bench = bench_of(net(up("x", "y", "up")))
    assert (bench.comparison, bench.telling) == pytest.approx((comparison, telling))
    assert bench.left == pytest.approx(left, abs=0.01)


@pytest.mark.parametrize("kept", [True, False], ids=["--dump", "without"])
def test_what_fails_before_it_is_timed_is_kept(
    track: Track, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: bool
) -> None:
    emit = PolyphaseConv.emit

    def wrong(rewrite: PolyphaseConv, emitter: Emitter) -> None:
        emit(replace(rewrite, axes=rewrite.axes[::-1]), emitter)

    monkeypatch.setattr(PolyphaseConv, "emit", wrong)
    folder = tmp_path / "dump"
    tuner = TunerOptions(cache=False, dump=folder if kept else None)
    weight, pads = integers(2, 3, 4, 4), [1, 0, 2, 1]
    proto = conv_transpose(weight, (5, 6), strides=[2, 2], pads=pads, opset=18)
    candidates = Candidates.of(load(proto), RewriteOptions(policy="fastest"))
    bench = Workbench.of(candidates, proto.SerializeToString(), tuner)
    with pytest.raises(CheckFailed, match=r"main/up: certificate failed for crop, dcr \(shape \["):
        bench.race([{}, {"main/up": DCR}], 5.0)
    assert track.races == []
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*"))
    models = [f"main_up/{name}" for name in ("inputs.npz", "new.onnx", "old.onnx")]
    assert files == (models if kept else [])
