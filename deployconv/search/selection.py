"""Select a form for each site from the timings of its forms, and confirm all of them together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deployconv.results import Candidate, Prediction
from deployconv.search.choice import Choice, Choices, Finalist
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
    def most_promising(self) -> Choice | None:
        """The form with the largest ratio above 1, however wide its confidence interval is."""
        likely = [entry for entry in self._timed_forms if entry.ratio > 1.0]
        best = max(likely, key=lambda entry: entry.ratio, default=None)
        return self.forms[best.name] if best is not None else None

    def of(self, choice: Choice | None) -> Candidate | None:
        """The timing of one form; None if it was not timed."""
        return next((entry for entry in self._timed_forms if entry.name == str(choice)), None)

    def ratio(self, choice: Choice | None) -> float:
        """How many times as fast a form is as the site as it was; 1 if it was not timed."""
        found = self.of(choice)
        return found.ratio if found is not None else 1.0

    def best(self, predicted: Choice | None) -> Choice | None:
        """The form to take; None leaves the site as it was.

        It is the predicted one unless another one was measured to be faster than the site as it
        was, and by more than the margin faster than the predicted one; or the predicted one was
        measured to be slower than the site as it was.
        """
        own = self.of(predicted)
        slower = own is not None and own.high < 1.0
        least = own.ratio * (1.0 + MARGIN) if own is not None and not slower else 1.0
        if own is None and predicted is not None:
            return predicted
        first = next((choice for choice, ratio in self.faster if ratio > least), None)
        return first or (None if slower else predicted)

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
    """The form of each site that changes, and how much faster each form is by itself."""

    choices: Choices = field(default_factory=dict)
    speedups: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, choices: Choices, timings: Timings) -> Selection:
        """A selection with the ratios that were measured; 1 for a form that was not timed."""
        speedups = {
            name: timings[name].ratio(choice) if name in timings else 1.0
            for name, choice in choices.items()
        }
        return cls(choices, speedups)

    def with_choice(self, name: str, choice: Choice, ratio: float) -> Selection:
        """The selection with another form of one site."""
        return Selection({**self.choices, name: choice}, {**self.speedups, name: ratio})

    def only(self, names: Collection[str]) -> Selection:
        """The selection in which all sites but these are as they were."""
        return Selection(
            {name: choice for name, choice in self.choices.items() if name in names},
            {name: ratio for name, ratio in self.speedups.items() if name in names},
        )

    def without(self, name: str) -> Selection:
        """The selection in which one site is as it was."""
        return self.only(self.choices.keys() - {name})


def finalists(predicted: Choices, timings: Timings) -> list[Finalist]:
    """The choices that are worth a comparison with the original, the most certain first.

    First what the cost model chooses, unless it chooses nothing. Then the best form of each site
    by its timings. Last the same, with the most promising form of sites that are undecided.
    """
    best = dict(predicted)
    for name, site in timings.items():
        choice = site.best(predicted.get(name))
        if choice is None:
            best.pop(name, None)
        else:
            best[name] = choice
    hopeful = {
        name: choice
        for name, site in timings.items()
        if name not in best and (choice := site.most_promising) is not None
    }
    found: list[Finalist] = []
    for choices, likely in ((predicted, True), (best, True), ({**best, **hopeful}, False)):
        if choices and all(choices != other.choices for other in found):
            found.append(Finalist(dict(choices), likely))
    return found


def confirm(bench: Workbench, last: Sequence[Finalist], timings: Timings) -> Choices:
    """Compare the whole model in each of the ``last`` choices with the original; take the fastest.

    A later one takes the place of an earlier one only if it was measured to be faster and is at
    most slightly slower. If none is faster than the original, the choices of the first one with the
    smallest gains are dropped, while there is time. Without time for any comparison the first one
    is taken, if it is likely to be faster.
    """
    if not last:
        return {}
    fastest = bench.fastest(last)
    if fastest is None:
        return last[0].choices if last[0].likely else {}
    left = Selection.of(last[0].choices, timings)
    for name in sorted(left.choices, key=left.speedups.__getitem__)[:-1]:
        if fastest or fastest is None:
            break
        left = left.without(name)
        fastest = bench.fastest([Finalist(left.choices)])
    return fastest or {}
