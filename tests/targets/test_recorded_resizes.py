"""No profile contradicts a run of a Resize that was recorded, and each wrong one is listed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from matrix.further import EVERY, FURTHER_RECORDS
from matrix.record import EXPORTED, RESIZE_RECORDS, Outcome, Record, Run, records
from matrix.resizes import RESIZES

import deployconv
from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import find_sites
from deployconv.results import Inspection
from deployconv.runtimes.toolchains.catalogue import toolchain_of
from deployconv.targets.catalogue import find_target
from deployconv.targets.profile import Rule
from deployconv.targets.rules import Judgement, judge
from tests.match.graphs import floats, parsed

RECORDS, FURTHER = records(RESIZE_RECORDS), records(FURTHER_RECORDS)
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


@cache
def judged(name: str, target: str) -> Judgement:
    """What the profile says of the Resize; one that shrinks is no site of a model to inspect."""
    (site,) = find_sites(view(load(EVERY[name].model())))
    return judge(find_target(target), site)


def hides(target: str) -> bool:
    """Whether a device computes in 8 bits, where a small difference does not show."""
    toolchain = toolchain_of(target)
    return toolchain is not None and toolchain.targets[target].integer


def cites_code(found: Judgement) -> bool:
    """Whether the source of a rule is the code of the toolchain: no run in 8 bits can show it."""
    return found.rule is not None and ".py" in found.rule.source


def shown(rule: Rule | None, runs: Iterable[Run], target: str) -> bool:
    """Whether a Resize that the rule speaks of was misread in one of these runs as exported."""
    misread = (run.form for run in runs if (run.spelling, run.outcome) == (EXPORTED, "misread"))
    return any(judged(name, target).rule == rule for name in misread)


@pytest.mark.parametrize("target", ["openvino", "mnn", "ncnn", "tvm", "esp32p4"])
def test_antialias_is_misread_if_one_axis_shrinks_and_another_grows(target: str) -> None:
    body = 'y = Resize<mode="linear", antialias=1>(x, , s)'
    original = parsed(body, {"s": floats(1, 1, 0.5, 2)}, "1,3,8,6", opset=18)
    (site,) = deployconv.inspect(original, target=target).sites
    (said,) = site.targets
    assert (said.verdict, said.text) == ("misread", "antialias is ignored")


def test_a_resize_that_shrinks_is_listed_if_a_target_takes_it_in_no_form() -> None:
    original = parsed(
        'y = Resize<mode="linear">(x, , s)', {"s": floats(1, 1, 0.5)}, "1,3,8", opset=18
    )
    (site,) = deployconv.inspect(original, target="imx500").sites
    assert site.reason is not None
    assert site.reason.code == "unsupported-on-target"
    assert deployconv.inspect(original, target="portable").sites == ()


def contradictions(record: Record, name: str) -> list[str]:
    """What the profile says of a Resize that the record contradicts."""
    judgement = judged(name, record.target)
    said, text = judgement.site.verdict, judgement.site.text
    exported, rewritten = record.of(name, EXPORTED), record.of(name, "target")
    found = []
    agrees = exported is None or said in AGREES[exported.outcome]
    if said == "misread" and not agrees and hides(record.target):
        further = FURTHER.get(record.target)
        runs = (*record.runs, *(further.runs if further else ()))
        agrees = shown(judgement.rule, runs, record.target) or cites_code(judgement)
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


def test_of_8_bits_a_rule_needs_a_run_that_shows_it() -> None:
    rule = judged("cub_exc", "esp32p4").rule
    right, misread = (Run("cub_exc", EXPORTED, outcome, "words") for outcome in OUTCOMES)
    assert not shown(rule, [right, Run("cub_a.5", EXPORTED, "misread", "words")], "esp32p4")
    assert shown(rule, [right, misread], "esp32p4")


OUTCOMES: tuple[Outcome, Outcome] = ("right", "misread")


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
