"""Forms are selected from the timings of each site, and from comparisons of several sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from deployconv.results import Candidate, Prediction
from deployconv.search.choice import AS_IT_WAS, Choice, Choices, Finalist
from deployconv.search.selection import SiteTimings, confirm, finalists
from deployconv.search.workbench import Workbench

COL2IM, DCR = Choice("crop", "col2im"), Choice("crop", "dcr")
FORMS = {str(choice): choice for choice in (COL2IM, DCR)}
Spread = tuple[float, float, float]
"""low, ratio, high"""


def candidate(name: str, spread: Spread) -> Candidate:
    low, ratio, high = spread
    return Candidate(name, 10.0 / ratio, ratio, low, high, False)


def two_forms(col2im: Spread | None = None, dcr: Spread | None = None) -> SiteTimings:
    """The timings of a site: of none of its two forms, of one or of both."""
    found = [(str(COL2IM), col2im), (str(DCR), dcr)]
    entries = [candidate(name, spread) for name, spread in found if spread is not None]
    first = [candidate(AS_IT_WAS, (1.0, 1.0, 1.0))] if entries else []
    return SiteTimings(FORMS, (*first, *entries))


@pytest.mark.parametrize(
    ("found", "fastest", "promising"),
    [
        (two_forms((1.1, 1.2, 1.3), (1.3, 1.4, 1.5)), DCR, DCR),
        (two_forms((1.1, 1.2, 1.3), (0.9, 1.4, 1.5)), COL2IM, DCR),
        (two_forms((0.98, 1.02, 1.1), (0.97, 1.01, 1.2)), None, COL2IM),
        (two_forms((1.005, 1.006, 1.007), (0.8, 0.9, 1.2)), None, COL2IM),
        (two_forms((0.8, 0.9, 1.2), (0.5, 0.6, 0.7)), None, None),
        (two_forms((1.1, 1.2, 1.3)), COL2IM, COL2IM),
        (two_forms(), None, None),
    ],
    ids=["both", "one", "perhaps", "by less than the margin", "neither", "one timed", "none timed"],
)
def test_which_form_is_faster(
    found: SiteTimings, fastest: Choice | None, promising: Choice | None
) -> None:
    first = found.faster[0][0] if found.faster else None
    assert first == fastest
    assert found.most_promising == promising


def test_an_unknown_form_is_never_selected() -> None:
    """A broken cache may have one."""
    found = SiteTimings({}, (candidate("crop, magic", (1.1, 1.2, 1.3)),))
    assert found.faster == []
    assert found.best(None) is None


@pytest.mark.parametrize(
    ("found", "predicted", "taken"),
    [
        (two_forms(), None, None),
        (two_forms(), COL2IM, COL2IM),
        (two_forms((1.1, 1.2, 1.3)), None, COL2IM),
        (two_forms((0.98, 1.02, 1.1)), None, None),
        (two_forms((0.9, 0.95, 1.1)), COL2IM, COL2IM),
        (two_forms((0.8, 0.9, 0.99)), COL2IM, None),
        (two_forms((0.8, 0.9, 0.99), (1.1, 1.2, 1.3)), COL2IM, DCR),
        (two_forms((1.1, 1.2, 1.3), (1.3, 1.4, 1.5)), COL2IM, DCR),
        (two_forms((1.1, 1.2, 1.3), (1.1, 1.205, 1.3)), COL2IM, COL2IM),
        (two_forms((1.1, 1.2, 1.3), (0.9, 1.4, 1.5)), COL2IM, COL2IM),
        (two_forms(None, (1.3, 1.4, 1.5)), COL2IM, COL2IM),
    ],
    ids=[
        "nothing is known",
        "predicted",
        "timed",
        "perhaps",
        "perhaps not",
        "slower",
        "slower than another",
        "faster than the predicted one",
        "hardly faster than the predicted one",
        "perhaps faster than the predicted one",
        "only another was timed",
    ],
)
def test_the_form_to_take(
    found: SiteTimings, predicted: Choice | None, taken: Choice | None
) -> None:
    assert found.best(predicted) == taken


PREDICTED = (Prediction(AS_IT_WAS, 4.0, True), Prediction(str(COL2IM), 3.0, False))


@pytest.mark.parametrize(
    ("found", "taken", "shown"),
    [
        (two_forms((1.1, 1.2, 1.3)), COL2IM, [(AS_IT_WAS, False), (COL2IM, True)]),
        (two_forms(None, (0.8, 0.9, 1.2)), None, [(AS_IT_WAS, True), (DCR, False)]),
        (
            two_forms(None, (0.8, 0.9, 1.2)),
            COL2IM,
            [(AS_IT_WAS, False), (DCR, False), (COL2IM, True)],
        ),
        (two_forms(), COL2IM, [(AS_IT_WAS, False), (COL2IM, True)]),
        (two_forms(), None, [(AS_IT_WAS, True), (COL2IM, False)]),
    ],
    ids=["timed", "as it was", "another was timed", "predicted", "predicted and kept"],
)
def test_the_candidates_in_the_report(
    found: SiteTimings, taken: Choice | None, shown: list[tuple[object, bool]]
) -> None:
    """Timings, and a prediction for a form that was taken without one."""
    entries = found.reported(PREDICTED, AS_IT_WAS if taken is None else str(taken))
    assert [(entry.name, entry.chosen) for entry in entries] == [
        (str(name), chosen) for name, chosen in shown
    ]
    measured = [entry for entry in entries if isinstance(entry, Candidate)]
    assert [replace(entry, chosen=False) for entry in measured] == list(found.timed)


# --- the comparison with the original


def test_the_prediction_comes_before_what_was_measured_and_what_is_only_hoped_for() -> None:
    timings = {
        "a": two_forms((1.1, 1.2, 1.3), (1.3, 1.4, 1.5)),
        "b": two_forms((0.98, 1.02, 1.1)),
        "c": two_forms((0.8, 0.9, 0.99)),
    }
    assert finalists({"a": COL2IM, "d": DCR}, timings) == [
        Finalist({"a": COL2IM, "d": DCR}),
        Finalist({"a": DCR, "d": DCR}),
        Finalist({"a": DCR, "d": DCR, "b": COL2IM}, likely=False),
    ]


@pytest.mark.parametrize(
    ("predicted", "timings", "expected"),
    [
        ({}, {}, []),
        ({}, {"a": two_forms((0.8, 0.9, 0.99))}, []),
        ({"a": DCR}, {}, [Finalist({"a": DCR})]),
        ({"a": COL2IM}, {"a": two_forms((0.8, 0.9, 0.99))}, [Finalist({"a": COL2IM})]),
        ({}, {"a": two_forms((0.9, 1.1, 1.3))}, [Finalist({"a": COL2IM}, likely=False)]),
    ],
    ids=["nothing", "nothing is faster", "predicted", "slower than predicted", "hoped for"],
)
def test_what_is_compared_with_the_original(
    predicted: Choices, timings: dict[str, SiteTimings], expected: list[Finalist]
) -> None:
    assert finalists(predicted, timings) == expected


@dataclass
class Bench:
    """A `Workbench` in which the sites that ``hold`` are faster, if no other site changes."""

    hold: set[str]
    time: bool = True
    asked: list[list[str]] = field(default_factory=list)

    def fastest(self, last: Sequence[Finalist]) -> Choices | None:
        if not self.time:
            return None
        self.asked += [sorted(one.choices) for one in last]
        return next((one.choices for one in last if one.choices.keys() <= self.hold), {})


@pytest.mark.parametrize(
    ("hold", "kept", "asked"),
    [
        ({"a", "b", "c"}, ["a", "b", "c"], [["a", "b", "c"]]),
        ({"a", "c"}, ["a", "c"], [["a", "b", "c"], ["a", "c"]]),
        ({"a", "b"}, ["a"], [["a", "b", "c"], ["a", "c"], ["a"]]),
        (set(), [], [["a", "b", "c"], ["a", "c"], ["a"]]),
    ],
    ids=["all", "without the smallest", "the largest", "none"],
)
def test_what_does_not_hold_is_dropped_the_smallest_gain_first(
    hold: set[str], kept: list[str], asked: list[list[str]]
) -> None:
    bench = Bench(hold)
    timings = {
        "a": two_forms((1.3, 1.4, 1.5)),
        "b": two_forms((1.0, 1.1, 1.2)),
        "c": two_forms((1.1, 1.2, 1.3)),
    }
    last = [Finalist(dict.fromkeys("abc", COL2IM))]
    assert sorted(confirm(cast(Workbench, bench), last, timings)) == kept
    assert bench.asked == asked


def test_without_a_finalist_nothing_is_timed() -> None:
    bench = Bench(set())
    assert confirm(cast(Workbench, bench), [], {}) == {}
    assert bench.asked == []


@pytest.mark.parametrize(("likely", "taken"), [(True, ["a"]), (False, [])])
def test_without_time_the_first_is_taken_if_it_is_likely(likely: bool, taken: list[str]) -> None:
    last = [Finalist({"a": COL2IM}, likely), Finalist({"b": COL2IM})]
    assert list(confirm(cast(Workbench, Bench(set(), time=False)), last, {})) == taken
