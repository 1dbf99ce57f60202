"""No profile contradicts a run of a Resize that was recorded, and each wrong one is listed."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from matrix.record import EXPORTED, RESIZE_RECORDS, Record, Run, records
from matrix.resizes import RESIZES

import deployconv
from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import SkippedSite, find_sites
from deployconv.results import Inspection
from deployconv.targets.catalogue import find_target
from deployconv.targets.rules import judge

RECORDS = records(RESIZE_RECORDS)
RIGHT = ("right", "converted")
AGREES = {
    "right": ("fits", "slow"),
    "converted": ("fits", "slow", "misread"),
    "refused": ("refused",),
    "crashed": ("refused",),
    "misread": ("misread",),
}
"""The verdicts that agree with an outcome of the Resize as exported."""


@cache
def inspected(name: str, target: str) -> Inspection:
    return deployconv.inspect(RESIZES[name].model(), target=target)


def verdict(name: str, target: str) -> tuple[str, str | None]:
    """What the profile says of the Resize; one that shrinks is no site of a model to inspect."""
    (site,) = find_sites(view(load(RESIZES[name].model())))
    assert not isinstance(site, SkippedSite)
    said = judge(find_target(target), site).site
    return said.verdict, said.text


def contradictions(record: Record, name: str) -> list[str]:
    """What the profile says of a Resize that the record contradicts."""
    said, text = verdict(name, record.target)
    exported, rewritten = record.of(name, EXPORTED), record.of(name, "target")
    found = []
    if exported is not None and said not in AGREES[exported.outcome]:
        found.append(f"{name}: {said} ({text}), where it was {exported.outcome}")
    if rewritten is None or rewritten.outcome in RIGHT:
        return found
    sites = inspected(name, record.target).sites
    if not any(one.reason and one.reason.code == "unsupported-on-target" for one in sites):
        found.append(f"{name}: {rewritten.outcome} after the rewrite, and no reason says so")
    return found


@pytest.mark.parametrize("target", RECORDS)
def test_a_profile_agrees_with_what_its_toolchain_did(target: str) -> None:
    found = [contradictions(RECORDS[target], name) for name in RESIZES]
    assert [line for lines in found for line in lines] == []


@pytest.mark.parametrize("target", RECORDS)
def test_a_run_that_is_not_right_says_why(target: str) -> None:
    for run in RECORDS[target].runs:
        assert run.form in RESIZES
        assert run.words or run.outcome in RIGHT, run
        assert "/tmp" not in run.words, run


@pytest.mark.parametrize("target", RECORDS)
def test_a_record_has_every_resize_as_exported_and_for_its_target(target: str) -> None:
    for spelling in (EXPORTED, "target"):
        runs = [run.form for run in RECORDS[target].runs if run.spelling == spelling]
        assert runs == list(RESIZES)


def test_there_are_46_resizes() -> None:
    assert len(RESIZES) == 46


@pytest.mark.parametrize("name", RESIZES)
def test_a_resize_is_a_valid_model_that_onnxruntime_runs(name: str) -> None:
    model = RESIZES[name].model()
    onnx.checker.check_model(model, full_check=True)
    if name == "cub_1d":
        return  # onnxruntime has no cubic Resize of one axis
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (made,) = session.run(None, {"x": RESIZES[name].input()})
    assert np.isfinite(made).all()


def test_a_contradiction_is_seen() -> None:
    def record(*runs: Run) -> Record:
        return Record("openvino", "1", "2026-11-29", runs)

    exported = Run("lin_hp", EXPORTED, "misread", "words")
    assert contradictions(record(exported), "lin_hp") == [
        "lin_hp: fits (None), where it was misread"
    ]
    rewritten = Run("lin_hp", "target", "refused", "words")
    assert contradictions(record(rewritten), "lin_hp") == [
        "lin_hp: refused after the rewrite, and no reason says so"
    ]
