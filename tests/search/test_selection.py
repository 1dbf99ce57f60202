"""Forms are selected from the timings of each site, and from comparisons of several sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from deployconv.results import Candidate, Prediction
from deployconv.search.choice import AS_IT_WAS, Choice, Choices
from deployconv.search.measure import Timing
from deployconv.search.selection import Selection, SiteTimings, confirm, select_jointly
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
    ("found", "fastest", "promising", "undecided"),
    [
        (two_forms((1.1, 1.2, 1.3), (1.3, 1.4, 1.5)), DCR, DCR, False),
        (two_forms((1.1, 1.2, 1.3), (0.9, 1.4, 1.5)), COL2IM, DCR, False),
        (two_forms((0.98, 1.02, 1.1), (0.97, 1.01, 1.2)), None, COL2IM, True),
        (two_forms((1.005, 1.006, 1.007), (0.8, 0.9, 1.2)), None, COL2IM, True),
        (two_forms((0.8, 0.9, 1.2), (0.5, 0.6, 0.7)), None, None, False),
        (two_forms((1.1, 1.2, 1.3)), COL2IM, COL2IM, False),
        (two_forms(), None, None, True),
    ],
    ids=["both", "one", "perhaps", "by less than the margin", "neither", "one timed", "none timed"],
)
def test_which_form_is_faster(
    found: SiteTimings, fastest: Choice | None, promising: Choice | None, undecided: bool
) -> None:
    first = found.faster[0][0] if found.faster else None
    assert first == fastest
    best = found.most_promising
    assert (best.name if best else "None") == str(promising)
    assert found.undecided is undecided


def test_an_unknown_form_is_never_selected() -> None:
    """A broken cache may have one."""
    found = SiteTimings({}, (candidate("crop, magic", (1.1, 1.2, 1.3)),))
    assert found.faster == []
    assert not found.undecided


@pytest.mark.parametrize(
    ("col2im", "taken", "out"),
    [
        ((0.8, 0.9, 0.99), None, True),
        ((0.8, 0.9, 1.01), None, False),
        ((1.2, 1.25, 1.29), DCR, True),
        ((1.2, 1.25, 1.31), DCR, False),
        (None, None, False),
        (None, DCR, False),
    ],
    ids=["slower", "perhaps", "slower than dcr", "perhaps not", "not timed", "nor beside dcr"],
)
def test_a_form_that_is_ruled_out(col2im: Spread | None, taken: Choice | None, out: bool) -> None:
    assert two_forms(col2im, (1.3, 1.4, 1.5)).rules_out(COL2IM, taken) is out


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


# --- several sites together

BIG = {"big": COL2IM}
"""A selection that there is already."""


@dataclass
class Bench:
    """A `Workbench` with scripted timings: a choice saves so much of 100 ms."""

    saves: Mapping[tuple[str, Choice], float]
    noise: float = 0.0
    seconds_left: float = 60.0
    comparison_seconds: float = 0.0
    short_comparison: float = 3.0
    long_comparison: float = 4.0
    comparisons: list[list[Choices | None]] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)

    def compare(
        self, variants: Sequence[Choices | None], seconds: float, until_decided: bool
    ) -> list[Timing]:
        assert until_decided
        self.comparisons.append(list(variants))
        self.budgets.append(seconds)
        self.seconds_left -= self.comparison_seconds
        times = [
            100.0 - sum(self.saves.get(choice, 0.0) for choice in (choices or {}).items())
            for choices in variants
        ]
        ratios = [times[0] / time for time in times]
        return [
            Timing(time, ratio, ratio - self.noise, ratio + self.noise)
            for time, ratio in zip(times, ratios, strict=True)
        ]


def site(ratio: float | None = None, noise: float = 0.05, choice: Choice = COL2IM) -> SiteTimings:
    """The timings of one site: of one form, or of none."""
    if ratio is None:
        return SiteTimings(FORMS, ())
    entry = Candidate(str(choice), 100.0 / ratio, ratio, ratio - noise, ratio + noise, False)
    return SiteTimings(FORMS, (entry,))


def selected(
    bench: Bench,
    timings: Mapping[str, SiteTimings],
    predicted: Choices | None = None,
    choices: Choices | None = None,
) -> Selection:
    selection = Selection(choices or {}, dict.fromkeys(choices or {}, 1.2))
    return select_jointly(cast(Workbench, bench), selection, timings, predicted or {})


def test_what_is_faster_together_is_taken_together() -> None:
    bench = Bench({("a", COL2IM): 3.0, ("b", COL2IM): 2.0}, noise=0.03)
    timings = {"big": site(1.2), "a": site(1.03), "b": site(1.02)}
    selection = selected(bench, timings, choices=BIG)
    assert selection.choices == {"big": COL2IM, "a": COL2IM, "b": COL2IM}
    assert selection.speedups == pytest.approx({"big": 1.2, "a": 1 / 0.95, "b": 1 / 0.95})
    assert bench.comparisons == [[BIG, selection.choices]]


@pytest.mark.parametrize(
    ("timings", "predicted"),
    [
        ({"big": site(1.2)}, {}),
        ({"big": site(1.2)}, BIG),
        ({"big": site(1.2), "a": site(0.98)}, {}),
        ({"big": site(1.2), "a": site(0.9)}, {"a": COL2IM}),
        ({"big": site(1.2), "a": site()}, {}),
    ],
    ids=["all decided", "as predicted", "hardly slower", "slower", "nothing known"],
)
def test_nothing_is_timed_if_nothing_is_undecided(
    timings: Mapping[str, SiteTimings], predicted: Choices
) -> None:
    bench = Bench({})
    assert selected(bench, timings, predicted, BIG).choices == BIG
    assert bench.comparisons == []


def test_a_site_that_was_not_timed_takes_what_is_predicted() -> None:
    bench = Bench({("a", COL2IM): 3.0})
    assert selected(bench, {"a": site()}, {"a": COL2IM}).choices == {"a": COL2IM}


def test_a_predicted_form_may_be_better_than_one_that_is_hardly_faster() -> None:
    """Two forms are as fast as each other within the noise of their comparison."""
    entries = [
        Candidate(str(choice), 90.0, ratio, ratio - 0.02, ratio + 0.02, False)
        for choice, ratio in ((COL2IM, 1.115), (DCR, 1.124))
    ]
    timings = {"head": SiteTimings(FORMS, tuple(entries))}
    bench = Bench({("head", COL2IM): 13.0, ("head", DCR): 10.0})
    selection = selected(bench, timings, {"head": COL2IM}, {"head": DCR})
    assert selection.choices == {"head": COL2IM}
    assert bench.comparisons == [[{"head": DCR}, {"head": COL2IM}]]


def test_the_timings_and_the_prediction_each_give_a_candidate() -> None:
    """The two sites are undecided, and only the first has a prediction."""
    bench = Bench({("a", COL2IM): 1.0, ("a", DCR): 5.0, ("b", COL2IM): 2.0})
    selection = selected(bench, {"a": site(1.02), "b": site(1.01)}, {"a": DCR})
    assert bench.comparisons == [[{}, {"a": COL2IM, "b": COL2IM}, {"a": DCR}]]
    assert selection.choices == {"a": DCR}


def selected_with_the_big_one(saves: float, noise: float, choices: Choices = BIG) -> Choices:
    """What is selected for a small site that was not timed but has a predicted gain."""
    bench = Bench({("big", COL2IM): 10.0, ("small", COL2IM): saves}, noise=noise)
    timings = {"big": site(1.2), "small": site()}
    return selected(bench, timings, {**choices, "small": COL2IM}, choices).choices


def test_a_small_gain_that_is_both_predicted_and_measured_is_taken() -> None:
    assert selected_with_the_big_one(saves=1.0, noise=0.02) == {**BIG, "small": COL2IM}


@pytest.mark.parametrize(
    ("saves", "noise"), [(1.0, 0.03), (-0.5, 0.01), (0.0, 0.0)], ids=["unsure", "slower", "none"]
)
def test_a_prediction_alone_is_not_enough(saves: float, noise: float) -> None:
    assert selected_with_the_big_one(saves, noise) == BIG


def test_nothing_replaces_the_original_for_a_small_gain() -> None:
    assert selected_with_the_big_one(saves=1.0, noise=0.02, choices={}) == {}


@pytest.mark.parametrize("noise", [0.0, 0.2], ids=["slower", "within the noise"])
def test_what_is_not_faster_is_left(noise: float) -> None:
    bench = Bench({("a", COL2IM): -3.0 if noise == 0.0 else 3.0}, noise=noise)
    assert selected(bench, {"a": site(1.02)}).choices == {}
    assert len(bench.comparisons) == 1


def test_the_stronger_half_comes_next_then_the_rest() -> None:
    """One of the three is slower."""
    bench = Bench({("a", COL2IM): -9.0, ("b", COL2IM): 3.0, ("c", COL2IM): 3.0})
    selection = selected(bench, {"a": site(1.01), "b": site(1.03), "c": site(1.02)})
    sites = [[sorted(choices or {}) for choices in one] for one in bench.comparisons]
    assert sites == [[[], ["a", "b", "c"]], [[], ["b", "c"]], [["b", "c"], ["a", "b", "c"]]]
    assert selection.choices == {"b": COL2IM, "c": COL2IM}
    assert selection.speedups == pytest.approx({"b": 1 / 0.94, "c": 1 / 0.94})


def test_a_half_that_fails_is_halved_again() -> None:
    bench = Bench({("a", COL2IM): -9.0, ("b", COL2IM): 3.0, ("c", COL2IM): -1.0})
    selection = selected(bench, {"a": site(1.03), "b": site(1.02), "c": site(1.01)})
    sites = [sorted(candidate or {}) for _, candidate in bench.comparisons]
    assert sites == [["a", "b", "c"], ["a", "b"], ["a"], ["b"], ["b", "c"]]
    assert selection.choices == {"b": COL2IM}


@pytest.mark.parametrize(
    ("left", "comparison_seconds", "budgets"),
    [
        (60.0, 20.0, [30.0, 20.0, 20.0]),
        (60.0, 30.0, [30.0, 15.0]),
        (11.0, 9.0, [5.5]),
        (6.0, 4.0, [4.0]),
        (3.5, 3.5, [3.5]),
        (-2.0, 3.0, [3.0]),
    ],
    ids=["plenty", "for one half", "for none", "for twelve rounds", "for fewer", "overdrawn"],
)
def test_halves_are_tried_as_long_as_there_is_time(
    left: float, comparison_seconds: float, budgets: list[float]
) -> None:
    bench = Bench({}, seconds_left=left, comparison_seconds=comparison_seconds)
    selected(bench, {"a": site(1.03), "b": site(1.02)})
    assert bench.budgets == budgets


# --- the last comparison, with the original


@pytest.mark.parametrize(
    ("saves", "kept"),
    [
        ({"big": 10.0, "a": 1.0}, ["a", "big"]),
        ({"big": 10.0, "a": -20.0}, ["big"]),
        ({"big": -10.0, "a": 2.0}, []),
        ({}, []),
    ],
    ids=["holds", "but for the smallest", "slower", "equal"],
)
def test_what_does_not_hold_is_dropped(saves: Mapping[str, float], kept: list[str]) -> None:
    bench = Bench({(name, COL2IM): ms for name, ms in saves.items()})
    selection = Selection({"big": COL2IM, "a": COL2IM}, {"big": 1.1, "a": 1.02})
    assert sorted(confirm(cast(Workbench, bench), selection)) == kept
    assert all(original is None for original, _ in bench.comparisons)


@pytest.mark.parametrize(
    ("left", "budget"), [(10.0, 13.0), (-5.0, 3.0)], ids=["time left", "overdrawn"]
)
def test_the_last_comparison_has_the_time_that_is_left(left: float, budget: float) -> None:
    bench = Bench({("a", COL2IM): 3.0}, seconds_left=left)
    confirm(cast(Workbench, bench), Selection({"a": COL2IM}, {"a": 1.02}))
    assert bench.budgets == [budget]
