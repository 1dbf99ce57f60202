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
from deployconv.runtimes.toolchains.catalogue import toolchain_of
from deployconv.targets.catalogue import find_target
from deployconv.targets.rules import Judgement, judge
from tests.match.graphs import floats, parsed

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


def judged(name: str, target: str) -> Judgement:
    """What the profile says of the Resize; one that shrinks is no site of a model to inspect."""
    (site,) = find_sites(view(load(RESIZES[name].model())))
    assert not isinstance(site, SkippedSite)
    return judge(find_target(target), site)


def known_from_elsewhere(found: Judgement, target: str) -> bool:
    """Whether a rule for a device of 8 bits rests on something else than runs in 8 bits.

    These hide a small difference, which the code of the toolchain or a run in float shows.
    """
    toolchain = toolchain_of(target)
    if found.rule is None or toolchain is None or not toolchain.targets[target].integer:
        return False
    return found.rule.source != find_target(target).source


@pytest.mark.parametrize("target", ["openvino", "mnn", "ncnn", "tvm", "esp32p4"])
def test_antialias_is_misread_if_one_axis_shrinks_and_another_grows(target: str) -> None:
    body = 'y = Resize<mode="linear", antialias=1>(x, , s)'
    original = parsed(body, {"s": floats(1, 1, 0.5, 2)}, "1,3,8,6", opset=18)
    (site,) = deployconv.inspect(original, target=target).sites
    (said,) = site.targets
    assert (said.verdict, said.text) == ("misread", "antialias is ignored")


def test_a_resize_that_shrinks_is_listed_if_a_target_takes_it_in_no_form() -> None:
    (site,) = inspected("lin_ac_down", "imx500").sites
    assert site.reason is not None
    assert site.reason.code == "unsupported-on-target"
    assert inspected("lin_ac_down", "portable").sites == ()


def contradictions(record: Record, name: str) -> list[str]:
    """What the profile says of a Resize that the record contradicts."""
    judgement = judged(name, record.target)
    said, text = judgement.site.verdict, judgement.site.text
    exported, rewritten = record.of(name, EXPORTED), record.of(name, "target")
    found = []
    agrees = exported is None or said in AGREES[exported.outcome]
    if said == "misread" and exported is not None and exported.outcome == "right":
        agrees = known_from_elsewhere(judgement, record.target)
    if not agrees:
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
