"""Select a form for each site from measurements, first site by site, then for sites together.

A site that takes one or two percent of a model's time cannot be told from the noise of the whole
model. Several of them together can. The last comparison is with the original model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from deployconv.results import Candidate, Prediction
from deployconv.search.choice import Choice, Choices
from deployconv.search.measure import MARGIN
from deployconv.search.workbench import Workbench


@dataclass(frozen=True)
class SiteTimings:
    """What was measured of one site.

    Attributes:
        forms: the forms that it may take, by name.
        timed: the timings of its candidates, the site as it was among them.
    """

    forms: Mapping[str, Choice]
    timed: tuple[Candidate, ...]

    @property
    def faster(self) -> list[tuple[Choice, float]]:
        """The forms that are faster than the site as it was, with their ratios, fastest first.

        Their confidence intervals are above 1 by more than the margin.
        """
        faster = [entry for entry in self._timed_forms if entry.low > 1.0 + MARGIN]
        faster.sort(key=lambda entry: entry.ratio, reverse=True)
        return [(self.forms[entry.name], entry.ratio) for entry in faster]

    @property
    def most_promising(self) -> Candidate | None:
        """The form with the largest ratio above 1, however wide its confidence interval is."""
        likely = [entry for entry in self._timed_forms if entry.ratio > 1.0]
        return max(likely, key=lambda entry: entry.ratio, default=None)

    @property
    def undecided(self) -> bool:
        """Whether no form is known to be faster, but a longer comparison may find one."""
        return not self.faster and (not self.timed or self.most_promising is not None)

    def of(self, choice: Choice | None) -> Candidate | None:
        """The timing of one form; None if it was not timed."""
        return next((entry for entry in self._timed_forms if entry.name == str(choice)), None)

    def rules_out(self, choice: Choice, selected: Choice | None) -> bool:
        """Whether ``choice`` was measured to be no faster than ``selected``.

        None for ``selected`` is the site as it was.
        """
        own, best = self.of(choice), self.of(selected)
        return own is not None and own.high <= (best.low if best is not None else 1.0)

    def reported(
        self, predictions: tuple[Candidate | Prediction, ...], selected: str
    ) -> tuple[Candidate | Prediction, ...]:
        """The candidates for the report; ``selected`` names the one that is marked as chosen.

        Predictions are added if nothing was timed, or for a selected form that was not timed.
        """
        timed = {entry.name for entry in self.timed}
        added = [
            entry
            for entry in predictions
            if not timed or (entry.name == selected and entry.name not in timed)
        ]
        entries = (*self.timed, *added)
        return tuple(replace(entry, chosen=entry.name == selected) for entry in entries)

    @property
    def _timed_forms(self) -> list[Candidate]:
        """The timings without the site as it was, and without unknown names from the cache."""
        return [entry for entry in self.timed if entry.name in self.forms]


Timings = Mapping[str, SiteTimings]
"""What was measured of each site, by its id, those with the most work first."""


@dataclass(frozen=True)
class Selection:
    """The form of each site that changes.

    ``speedups`` has the ratio of the comparison in which the form of a site was selected.
    """

    choices: Choices = field(default_factory=dict)
    speedups: Mapping[str, float] = field(default_factory=dict)

    def with_choices(self, choices: Choices, ratio: float) -> Selection:
        """The selection of ``choices`` and no others; ``ratio`` is that of the new ones."""
        speedups = {
            name: self.speedups[name] if self.choices.get(name) == choice else ratio
            for name, choice in choices.items()
        }
        return Selection(choices, speedups)

    def with_choice(self, name: str, choice: Choice, ratio: float) -> Selection:
        """The selection with another form of one site."""
        return self.with_choices({**self.choices, name: choice}, ratio)

    def only(self, names: Collection[str]) -> Selection:
        """The selection in which all sites but these are as they were."""
        return Selection(
            {name: choice for name, choice in self.choices.items() if name in names},
            {name: ratio for name, ratio in self.speedups.items() if name in names},
        )

    def without(self, name: str) -> Selection:
        """The selection in which one site is as it was."""
        return self.only(self.choices.keys() - {name})


def select_jointly(
    bench: Workbench, selection: Selection, timings: Timings, predicted: Choices
) -> Selection:
    """Add the forms that are faster when undecided sites are timed together.

    The selection is compared with two candidates. In the first, each undecided site has its most
    promising form. In the second, sites have the forms that the cost model chooses, except those
    that were measured to be slower. The faster one is selected if its confidence interval says so.

    If something is selected already, less is asked of the second candidate: a prediction and a
    measured ratio above 1 are enough, if the interval says that it is at most slightly slower. So a
    gain that is too small to be measured with confidence can be taken, but never in place of the
    original.

    If neither is selected, the more promising half of the sites in question is compared, and then
    the rest, while there is time.

    Raises CheckFailed for a form that computes something else.
    """
    so_far = dict(selection.choices)
    by_timing = {**so_far, **_most_promising(timings)}
    by_prediction = {**so_far, **_not_ruled_out(predicted, so_far, timings)}
    candidates = [by_timing] if by_timing != so_far else []
    if by_prediction not in (so_far, by_timing):
        candidates.append(by_prediction)
    if not candidates:
        return selection
    precise = min(bench.seconds_left, bench.long_comparison)
    seconds = max(bench.short_comparison, bench.seconds_left / 2, precise)
    _, *results = bench.compare([so_far, *candidates], seconds, until_decided=True)
    compared = list(zip(results, candidates, strict=True))
    faster = [(result.ratio, candidate) for result, candidate in compared if result.worth]
    if so_far and not faster:
        faster = [
            (result.ratio, candidate)
            for result, candidate in compared
            if candidate == by_prediction and result.likely
        ]
    if faster:
        ratio, best = max(faster, key=lambda pair: pair[0])
        return selection.with_choices(best, ratio)
    return _select_by_halves(bench, selection, timings, {**by_timing, **by_prediction})


def _select_by_halves(
    bench: Workbench, selection: Selection, timings: Timings, choices: Choices
) -> Selection:
    """Add those halves of the new ``choices`` that are faster, while there is time.

    A half that is not faster is halved again.
    """
    shortest = bench.short_comparison
    waiting = _halves(choices, selection.choices, timings)
    while waiting and bench.seconds_left >= shortest:
        part = waiting.pop(0)
        trial = {**selection.choices, **part}
        seconds = max(shortest, bench.seconds_left / (len(waiting) + 1))
        _, result = bench.compare([selection.choices, trial], seconds, until_decided=True)
        if result.worth:
            selection = selection.with_choices(trial, result.ratio)
        else:
            waiting[:0] = _halves(part, selection.choices, timings)
    return selection


def confirm(bench: Workbench, selection: Selection) -> Choices:
    """Compare the whole model with the original, and drop choices until it is faster.

    The choices with the smallest speedups are dropped first.
    """
    kept = dict(selection.choices)
    smallest_first = sorted(kept, key=selection.speedups.__getitem__)
    for name in smallest_first:
        seconds = bench.short_comparison + max(0.0, bench.seconds_left)
        _, result = bench.compare([None, kept], seconds, until_decided=True)
        if not result.slower and result.ratio > 1.0:
            break
        del kept[name]
    return kept


def _most_promising(timings: Timings) -> dict[str, Choice]:
    """The most promising form of each undecided site."""
    best = {name: site.most_promising for name, site in timings.items() if site.undecided}
    return {name: timings[name].forms[entry.name] for name, entry in best.items() if entry}


def _not_ruled_out(predicted: Choices, so_far: Choices, timings: Timings) -> dict[str, Choice]:
    """The ``predicted`` choices without those that were measured to be no faster."""
    return {
        name: predicted[name]
        for name, site in timings.items()
        if name in predicted and not site.rules_out(predicted[name], so_far.get(name))
    }


def _halves(choices: Choices, so_far: Choices, timings: Timings) -> list[dict[str, Choice]]:
    """The more and the less promising half of the new ``choices``; none if only one is new."""
    new = [name for name in timings if name in choices and choices[name] != so_far.get(name)]
    if len(new) < 2:
        return []

    def ratio(name: str) -> float:
        timing = timings[name].of(choices[name])
        return timing.ratio if timing is not None else 1.0

    # Sites that were not timed stay in their order: the most work first.
    new.sort(key=ratio, reverse=True)
    middle = ceil(len(new) / 2)
    return [{name: choices[name] for name in part} for part in (new[:middle], new[middle:])]
