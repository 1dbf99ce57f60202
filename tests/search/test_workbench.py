"""Variants are certified once and timed; how long a comparison takes follows from one run."""

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
from deployconv.search.choice import Choice, Finalist, TunerOptions
from deployconv.search.workbench import Workbench
from tests.build import conv_transpose, integers
from tests.search.conftest import ScriptedBackend, by_operator, left
from tests.search.nets import net, pair, up

COL2IM, DCR = Choice("crop", "col2im"), Choice("crop", "dcr")


def bench_of(proto: ModelProto, budget: float = 60.0) -> Workbench:
    options = RewriteOptions(policy="fastest")
    tuner = TunerOptions(budget=budget, cache=False)
    candidates = Candidates.of(load(proto), options)
    return Workbench.of(candidates, proto.SerializeToString(), tuner)


def test_sets_of_choices_are_compared(scripted: ScriptedBackend) -> None:
    scripted.cost = by_operator(ConvTranspose=3.0, Col2Im=1.0)
    large, both = {"main/large": COL2IM}, {"main/large": COL2IM, "main/small": COL2IM}
    timings = bench_of(pair()).compare([{}, large, both], 5.0)
    assert [[left(proto) for proto in compared] for compared in scripted.comparisons] == [
        [{"small", "large"}, {"small"}, frozenset()]
    ]
    assert [timing.ratio for timing in timings] == pytest.approx([1.0, 7 / 5, 7 / 3])


def test_the_fastest_choices_are_those_faster_than_the_original(scripted: ScriptedBackend) -> None:
    scripted.cost = by_operator(ConvTranspose=3.0, Col2Im=1.0, DepthToSpace=2.0)
    last = [Finalist({"main/up": DCR}), Finalist({"main/up": COL2IM})]
    assert bench_of(net(up("x", "y", "up"))).fastest(last) == {"main/up": COL2IM}
    assert len(scripted.finals[0]) == 2


@pytest.mark.parametrize(
    ("milliseconds", "noise", "likely", "taken"),
    [
        (0.9, 0.05, False, True),
        (0.9, 0.2, False, False),
        (0.9, 0.2, True, True),
        (0.995, 0.0, False, False),
        (0.995, 0.0, True, True),
        (1.0, 0.0, True, False),
        (1.1, 0.2, True, False),
    ],
)
def test_what_was_never_likely_has_to_be_faster_beyond_doubt(
    scripted: ScriptedBackend, milliseconds: float, noise: float, likely: bool, taken: bool
) -> None:
    scripted.cost = lambda proto: 1.0 if left(proto) else milliseconds
    scripted.noise = lambda proto: noise
    last = [Finalist({"main/up": COL2IM}, likely)]
    assert bool(bench_of(net(up("x", "y", "up"))).fastest(last)) is taken


def test_without_time_nothing_is_known(scripted: ScriptedBackend) -> None:
    scripted.cost, scripted.run_seconds = by_operator(ConvTranspose=3.0), 1.0
    bench = bench_of(net(up("x", "y", "up")), budget=3.0)
    assert bench.fastest([Finalist({"main/up": COL2IM})]) is None
    assert bench.compared == frozenset()
    assert scripted.finals == []


def test_each_form_is_certified_once(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified: list[str | None] = []
    real = workbench.certify

    def certify(rewrite: Rewrite, name: str, seed: int) -> Certified:
        certified.append(rewrite.summary.shuffle)
        return real(rewrite, name, seed)

    monkeypatch.setattr(workbench, "certify", certify)
    bench = bench_of(net(up("x", "y", "up")))
    for choice in (COL2IM, DCR, COL2IM):
        bench.compare([{}, {"main/up": choice}], 5.0)
    assert certified == ["col2im", "dcr"]


@pytest.mark.parametrize(
    ("run_seconds", "left", "for_races"),
    [(0.001, 59.99, 56.0), (0.1, 59.7, 54.0), (1.0, 57.0, 23.0), (10.0, 50.0, 14.0)],
    ids=["short", "longer", "long", "very long"],
)
def test_time_is_kept_for_the_comparison_with_the_original_and_for_the_memory(
    scripted: ScriptedBackend, run_seconds: float, left: float, for_races: float
) -> None:
    """The original has run once, and twice more if that took no second."""
    scripted.run_seconds = run_seconds
    bench = bench_of(net(up("x", "y", "up")))
    assert bench.seconds_left == pytest.approx(left, abs=0.01)
    assert bench.race_seconds == pytest.approx(for_races, abs=1.0)


@pytest.mark.parametrize("kept", [True, False], ids=["--dump", "without"])
def test_what_fails_before_it_is_timed_is_kept(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: bool
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
        bench.compare([{}, {"main/up": DCR}], 5.0)
    assert scripted.comparisons == []
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*"))
    models = [f"main_up/{name}" for name in ("inputs.npz", "new.onnx", "old.onnx")]
    assert files == (models if kept else [])
