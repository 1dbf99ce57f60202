"""No profile contradicts a recorded run of the layers that a target does something special with."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
from matrix.further import FURTHER, FURTHER_RECORDS
from matrix.record import EXPORTED, Record, Run, records

import deployconv
from deployconv.results import SiteReport

RECORDS = records(FURTHER_RECORDS)
RIGHT = ("right", "converted")
AGREES = {
    "right": ("fits", "slow"),
    "converted": ("fits", "slow"),
    "refused": ("refused", "misread"),
    "crashed": ("refused", "misread"),
    "misread": ("misread",),
}
"""The verdicts that agree with an outcome of the layer as exported.

A rule is about a kind of layer. One of a kind that is misread may end in an error instead.
"""


@cache
def planned(name: str, target: str) -> SiteReport:
    """What is said and planned of the only layer of a model."""
    (site,) = deployconv.inspect(FURTHER[name].model(), target=target).sites
    return site


def contradictions(record: Record, name: str) -> list[str]:
    """What the profile says of a layer that the record contradicts."""
    site = planned(name, record.target)
    (said,) = site.targets
    exported, rewritten = record.of(name, EXPORTED), record.of(name, "target")
    assert exported is not None
    assert rewritten is not None
    found = []
    if said.verdict not in AGREES[exported.outcome]:
        found.append(f"{name}: {said.verdict} ({said.text}), where it was {exported.outcome}")
    if rewritten.outcome not in RIGHT and site.status == "rewritten":
        found.append(f"{name}: would be {site.form}, which was {rewritten.outcome}")
    return found


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (target, name)
        for target, record in RECORDS.items()
        for name in dict.fromkeys(run.form for run in record.runs)
    ],
)
def test_a_profile_agrees_with_what_its_toolchain_did(target: str, name: str) -> None:
    assert contradictions(RECORDS[target], name) == []


@pytest.mark.parametrize("target", RECORDS)
def test_a_layer_that_was_right_as_exported_is_right_once_it_is_rewritten(target: str) -> None:
    right = [run for run in RECORDS[target].runs if run.outcome in RIGHT]
    rewritten = {run.form for run in right if run.spelling == "target"}
    assert {run.form for run in right if run.spelling == EXPORTED} <= rewritten


@pytest.mark.parametrize("name", ["lin_aa_dynamic_down", "cub_hp_dynamic_down"])
def test_slices_make_the_border_if_a_target_refuses_a_pad_of_mode_edge(name: str) -> None:
    model = deployconv.rewrite(
        FURTHER[name].model(), target="imx500", bench=False, verify=False
    ).model
    assert model is not None
    border = ["Slice", "Slice", "Concat"]
    assert [node.op_type for node in model.graph.node] == [*border, *border, "Conv"]


@pytest.mark.parametrize("name", FURTHER)
def test_a_layer_is_a_valid_model(name: str) -> None:
    onnx.checker.check_model(FURTHER[name].model(), full_check=True)


def test_a_contradiction_is_seen() -> None:
    exported = Run("d3_k3s1", EXPORTED, "misread", "words")
    rewritten = Run("d3_k3s1", "target", "refused", "words")
    record = Record("tract", "1", "2026-11-29", (exported, rewritten))
    assert contradictions(record, "d3_k3s1") == [
        "d3_k3s1: fits (None), where it was misread",
        "d3_k3s1: would be conv, which was refused",
    ]
