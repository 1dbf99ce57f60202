"""No profile contradicts a run of its toolchain that was recorded."""

from __future__ import annotations

import re
from functools import cache

import pytest
from matrix.forms import FORMS
from matrix.record import EXPORTED, RESIZE_RECORDS, Record, Run, records

import deployconv
from deployconv.results import SiteReport
from deployconv.targets.catalogue import find_target, target_names

RECORDS = records()
RIGHT = ("right", "converted")
TARGET = "target"
"""The spelling of a form as it was rewritten for the target."""
AGREES = {
    "right": ("fits", "slow"),
    "converted": ("fits", "slow", "misread"),
    "refused": ("refused",),
    "crashed": ("refused",),
    "misread": ("misread",),
}
"""The verdicts that agree with an outcome of the layer as exported."""


@cache
def planned(form: str, target: str) -> SiteReport:
    """What is said and planned of the only layer of a form."""
    (site,) = deployconv.inspect(FORMS[form].model(), target=target).sites
    return site


def contradictions(record: Record, form: str) -> list[str]:
    """What the profile says of a form that the record contradicts."""
    site = planned(form, record.target)
    (said,) = site.targets
    found = []
    exported = record.of(form, EXPORTED)
    if exported is not None and said.verdict not in AGREES[exported.outcome]:
        found.append(f"{form}: {said.verdict} ({said.text}), where it was {exported.outcome}")
    for spelling in (f"{site.form}-{site.shuffle}", TARGET):
        made = record.of(form, spelling)
        if made is not None and made.outcome not in RIGHT and site.status == "rewritten":
            found.append(f"{form}: would be {site.form}, {site.shuffle}, which was {made.outcome}")
    if exported is not None and exported.outcome not in RIGHT and site.status == "kept":
        helped = [run.spelling for run in record.runs if run.form == form and run.outcome in RIGHT]
        if helped:
            found.append(f"{form}: left alone, where {', '.join(helped)} were right")
    return found


@pytest.mark.parametrize("target", [name for name, one in RECORDS.items() if one.runs])
def test_profile_agrees_with_what_its_toolchain_did(target: str) -> None:
    record = RECORDS[target]
    forms = dict.fromkeys(run.form for run in record.runs)
    assert [line for form in forms for line in contradictions(record, form)] == []


@pytest.mark.parametrize("target", RECORDS)
def test_profile_is_of_the_version_that_was_run(target: str) -> None:
    numbers = re.findall(r"[0-9]+(?:\.[0-9a-z]+)+", find_target(target).version)
    assert numbers
    assert [one for one in numbers if one not in RECORDS[target].version] == []


@pytest.mark.parametrize("target", target_names())
def test_profile_says_what_was_run(target: str) -> None:
    """A profile gets `resizes` into its key `tested` together with the record of the Resizes."""
    kinds = {"layers": RECORDS, "resizes": records(RESIZE_RECORDS)}
    ran = [kind for kind, found in kinds.items() if target in found and found[target].runs]
    assert list(find_target(target).tested) == ran


@pytest.mark.parametrize("unit", ["cycles", "multiplications"])
def test_a_layer_that_was_right_takes_no_more_once_it_is_rewritten(unit: str) -> None:
    worse = []
    for record in RECORDS.values():
        for made in (run for run in record.runs if run.spelling == TARGET):
            before = record.of(made.form, EXPORTED)
            if before is None or before.outcome != "right" or unit not in before.notes:
                continue
            if "cpu" in before.notes:
                continue  # its cycles are not counted
            if made.notes[unit] > before.notes[unit]:
                worse.append(f"{record.target} {made.form}")
    assert worse == []


def test_a_contradiction_is_seen() -> None:
    def record(*runs: Run) -> Record:
        return Record("iree", "1", "2026-11-29", runs)

    exported = partial_run("k4s2p1", EXPORTED, "misread")
    assert contradictions(record(exported), "k4s2p1") == [
        "k4s2p1: slow (a ConvTranspose is slower than Conv and DepthToSpace), where it was misread"
    ]
    rewritten = partial_run("k4s2p1", "pad-dcr", "refused")
    assert contradictions(record(rewritten), "k4s2p1") == [
        "k4s2p1: would be pad, dcr, which was refused"
    ]


def partial_run(form: str, spelling: str, outcome: str) -> Run:
    return Run(form, spelling, outcome, "words")  # type: ignore[arg-type]
