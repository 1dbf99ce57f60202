"""Sites that are undecided by themselves are taken together, or in halves, or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from deployconv.results import Candidate
from deployconv.search.choice import Choice, Choices
from deployconv.search.figures import Figures
from deployconv.search.joint import Taken, confirmed, with_undecided
from deployconv.search.measure import Timing
from deployconv.search.workbench import Workbench

COL2IM, DCR = Choice("crop", "col2im"), Choice("crop", "dcr")
FORMS = {str(choice): choice for choice in (COL2IM, DCR)}
BIG = {"big": COL2IM}
"""What is taken already."""


@dataclass
class Bench:
    """Times sets of choices by script: a choice saves so much of 100 ms."""

    saves: Mapping[tuple[str, Choice], float]
    noise: float = 0.0
    left: float = 60.0
    lasts: float = 0.0
    comparison: float = 3.0
    telling: float = 4.0
    races: list[list[Choices | None]] = field(default_factory=list)
    granted: list[float] = field(default_factory=list)

    def race(
        self, variants: Sequence[Choices | None], seconds: float, until_decided: bool
    ) -> list[Timing]:
        assert until_decided
        self.races.append(list(variants))
        self.granted.append(seconds)
        self.left -= self.lasts
        times = [
            100.0 - sum(self.saves.get(choice, 0.0) for choice in (choices or {}).items())
            for choices in variants
        ]
        ratios = [times[0] / time for time in times]
        return [
            Timing(time, ratio, ratio - self.noise, ratio + self.noise)
            for time, ratio in zip(times, ratios, strict=True)
        ]


def site(ratio: float | None = None, noise: float = 0.05, choice: Choice = COL2IM) -> Figures:
    """One form was timed, or none."""
    if ratio is None:
        return Figures(FORMS, ())
    entry = Candidate(str(choice), 100.0 / ratio, ratio, ratio - noise, ratio + noise, False)
    return Figures(FORMS, (entry,))


def settled(
    bench: Bench,
    found: Mapping[str, Figures],
    predicted: Choices | None = None,
    choices: Choices | None = None,
) -> Taken:
    taken = Taken(choices or {}, dict.fromkeys(choices or {}, 1.2))
    return with_undecided(cast(Workbench, bench), taken, found, predicted or {})


def test_what_is_faster_together_is_taken_together() -> None:
    bench = Bench({("a", COL2IM): 3.0, ("b", COL2IM): 2.0}, noise=0.03)
    found = {"big": site(1.2), "a": site(1.03), "b": site(1.02)}
    taken = settled(bench, found, choices=BIG)
    assert taken.choices == {"big": COL2IM, "a": COL2IM, "b": COL2IM}
    assert taken.gains == pytest.approx({"big": 1.2, "a": 1 / 0.95, "b": 1 / 0.95})
    assert bench.races == [[BIG, taken.choices]]


@pytest.mark.parametrize(
    ("found", "predicted"),
    [
        ({"big": site(1.2)}, {}),
        ({"big": site(1.2)}, BIG),
        ({"big": site(1.2), "a": site(0.98)}, {}),
        ({"big": site(1.2), "a": site(0.9)}, {"a": COL2IM}),
        ({"big": site(1.2), "a": site()}, {}),
    ],
    ids=["all decided", "as predicted", "hardly slower", "slower", "nothing known"],
)
def test_where_nothing_is_open_nothing_is_timed(
    found: Mapping[str, Figures], predicted: Choices
) -> None:
    bench = Bench({})
    assert settled(bench, found, predicted, BIG).choices == BIG
    assert bench.races == []


def test_a_site_that_was_not_timed_takes_what_is_predicted() -> None:
    bench = Bench({("a", COL2IM): 3.0})
    assert settled(bench, {"a": site()}, {"a": COL2IM}).choices == {"a": COL2IM}


def test_what_is_predicted_may_be_better_than_what_won_by_a_hair() -> None:
    """Two forms are as fast as each other within the noise of their race."""
    entries = [
        Candidate(str(choice), 90.0, ratio, ratio - 0.02, ratio + 0.02, False)
        for choice, ratio in ((COL2IM, 1.115), (DCR, 1.124))
    ]
    found = {"head": Figures(FORMS, tuple(entries))}
    bench = Bench({("head", COL2IM): 13.0, ("head", DCR): 10.0})
    taken = settled(bench, found, {"head": COL2IM}, {"head": DCR})
    assert taken.choices == {"head": COL2IM}
    assert bench.races == [[{"head": DCR}, {"head": COL2IM}]]


def test_figures_and_prediction_race_each_other() -> None:
    """The two sites are undecided, and the prediction knows of the first alone."""
    bench = Bench({("a", COL2IM): 1.0, ("a", DCR): 5.0, ("b", COL2IM): 2.0})
    taken = settled(bench, {"a": site(1.02), "b": site(1.01)}, {"a": DCR})
    assert bench.races == [[{}, {"a": COL2IM, "b": COL2IM}, {"a": DCR}]]
    assert taken.choices == {"a": DCR}


def taken_beside_the_big_one(saves: float, noise: float, choices: Choices = BIG) -> Choices:
    """What becomes of a small site that was not timed, where a gain is predicted."""
    bench = Bench({("big", COL2IM): 10.0, ("small", COL2IM): saves}, noise=noise)
    found = {"big": site(1.2), "small": site()}
    return settled(bench, found, {**choices, "small": COL2IM}, choices).choices


def test_a_small_gain_that_is_both_predicted_and_measured_is_taken() -> None:
    assert taken_beside_the_big_one(saves=1.0, noise=0.02) == {**BIG, "small": COL2IM}


@pytest.mark.parametrize(
    ("saves", "noise"), [(1.0, 0.03), (-0.5, 0.01), (0.0, 0.0)], ids=["unsure", "slower", "none"]
)
def test_a_prediction_alone_is_not_enough(saves: float, noise: float) -> None:
    assert taken_beside_the_big_one(saves, noise) == BIG


def test_nothing_replaces_the_original_for_a_small_gain() -> None:
    assert taken_beside_the_big_one(saves=1.0, noise=0.02, choices={}) == {}


@pytest.mark.parametrize("noise", [0.0, 0.2], ids=["slower", "within the noise"])
def test_what_is_not_faster_is_left(noise: float) -> None:
    bench = Bench({("a", COL2IM): -3.0 if noise == 0.0 else 3.0}, noise=noise)
    assert settled(bench, {"a": site(1.02)}).choices == {}
    assert len(bench.races) == 1


def test_the_stronger_half_comes_next_then_the_rest() -> None:
    """One of three spoils it for the others."""
    bench = Bench({("a", COL2IM): -9.0, ("b", COL2IM): 3.0, ("c", COL2IM): 3.0})
    taken = settled(bench, {"a": site(1.01), "b": site(1.03), "c": site(1.02)})
    raced = [[sorted(choices or {}) for choices in race] for race in bench.races]
    assert raced == [[[], ["a", "b", "c"]], [[], ["b", "c"]], [["b", "c"], ["a", "b", "c"]]]
    assert taken.choices == {"b": COL2IM, "c": COL2IM}
    assert taken.gains == pytest.approx({"b": 1 / 0.94, "c": 1 / 0.94})


def test_a_half_that_fails_is_halved_again() -> None:
    bench = Bench({("a", COL2IM): -9.0, ("b", COL2IM): 3.0, ("c", COL2IM): -1.0})
    taken = settled(bench, {"a": site(1.03), "b": site(1.02), "c": site(1.01)})
    raced = [sorted(race[1] or {}) for race in bench.races]
    assert raced == [["a", "b", "c"], ["a", "b"], ["a"], ["b"], ["b", "c"]]
    assert taken.choices == {"b": COL2IM}


@pytest.mark.parametrize(
    ("left", "lasts", "granted"),
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
    left: float, lasts: float, granted: list[float]
) -> None:
    bench = Bench({}, left=left, lasts=lasts)
    settled(bench, {"a": site(1.03), "b": site(1.02)})
    assert bench.granted == granted


# --- the last word


@pytest.mark.parametrize(
    ("saves", "kept"),
    [
        ({"big": 10.0, "a": 1.0}, ["a", "big"]),
        ({"big": 10.0, "a": -20.0}, ["big"]),
        ({"big": -10.0, "a": 2.0}, []),
        ({}, []),
    ],
    ids=["holds", "but for the weakest", "slower", "equal"],
)
def test_what_does_not_hold_is_taken_back(saves: Mapping[str, float], kept: list[str]) -> None:
    bench = Bench({(name, COL2IM): ms for name, ms in saves.items()})
    taken = Taken({"big": COL2IM, "a": COL2IM}, {"big": 1.1, "a": 1.02})
    assert sorted(confirmed(cast(Workbench, bench), taken)) == kept
    assert all(race[0] is None for race in bench.races)  # the original itself


@pytest.mark.parametrize(
    ("left", "granted"), [(10.0, 13.0), (-5.0, 3.0)], ids=["time left", "overdrawn"]
)
def test_the_last_word_has_what_is_left(left: float, granted: float) -> None:
    bench = Bench({("a", COL2IM): 3.0}, left=left)
    confirmed(cast(Workbench, bench), Taken({"a": COL2IM}, {"a": 1.02}))
    assert bench.granted == [granted]
