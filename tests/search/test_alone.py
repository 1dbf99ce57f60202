"""Forms of one site run without the rest of the model, on what they read within it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from deployconv.errors import BackendUnavailable
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.runtimes.base import Array, Feeds, Session
from deployconv.search import alone
from deployconv.search.alone import SmallModels
from deployconv.search.choice import Choice
from deployconv.search.measure import Timing
from deployconv.search.workbench import FormFailed, Workbench
from tests.search.conftest import ScriptedBackend
from tests.search.nets import pair
from tests.search.test_workbench import bench_of

FORMS = [Choice("crop", "col2im"), Choice("crop", "dcr"), Choice("crop", "two-step")]


def site(bench: Workbench, name: str) -> PlannedSite:
    return next(one for one in bench.candidates.planning.default if one.id == f"main/{name}")


@pytest.mark.parametrize("name", ["small", "large"])
def test_all_forms_compute_the_same_from_what_the_model_has_there(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    outputs: list[dict[str, Array]] = []

    def compare(sessions: Sequence[Session], feeds: Feeds, seconds: float) -> list[Timing]:
        outputs.extend(session.run(feeds) for session in sessions)
        return [Timing(1.0, 1.0, 1.0, 1.0)] * len(sessions)

    monkeypatch.setattr(alone, "time_against_first", compare)
    bench = bench_of(pair())
    assert len(SmallModels(bench).compare(site(bench, name), FORMS, 5.0)) == 4
    first, *others = outputs
    if name == "large":  # its output is that of the model
        np.testing.assert_array_equal(first["y"], bench.expected["y"])
    for other in others:
        assert other.keys() == first.keys()
        for output, array in other.items():
            np.testing.assert_allclose(array, first[output], rtol=1e-5, atol=1e-5)


def test_the_whole_model_runs_once_for_all_sites(scripted: ScriptedBackend) -> None:
    scripted.load_seconds = 1.0
    bench = bench_of(pair())
    small = SmallModels(bench)
    began = scripted.now
    for name in ("large", "small"):
        small.compare(site(bench, name), FORMS[:1], 60.0)
    assert scripted.now - began == 1.0 + 2 * 2.0


def test_as_many_forms_as_there_is_time_for(scripted: ScriptedBackend) -> None:
    scripted.load_seconds = 1.0
    bench = bench_of(pair())
    assert len(SmallModels(bench).compare(site(bench, "large"), FORMS, 4.5)) == 3


def test_what_does_not_run_by_itself_is_not_timed_by_itself(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(pair())
    prepare = scripted.prepare

    def refuse(model: Any, **options: Any) -> Session:
        if isinstance(model, bytes) and len(onnx.ModelProto.FromString(model).graph.node) == 1:
            raise BackendUnavailable("no")
        return prepare(model, **options)

    monkeypatch.setattr(scripted, "prepare", refuse)
    assert SmallModels(bench).compare(site(bench, "large"), FORMS, 60.0) == []


def test_what_is_timed_by_itself_is_certified_before(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(pair())

    def failed(*_: object) -> None:
        raise FormFailed("certificate failed", {})

    monkeypatch.setattr(Workbench, "certify", failed)
    with pytest.raises(FormFailed, match="certificate failed: nothing was written"):
        SmallModels(bench).compare(site(bench, "large"), FORMS, 60.0)
