"""Whole sets of choices: what is undecided site by site, and the last word of the original.

A site that is one or two percent of a model cannot be told from the noise of the whole; three
of them together can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from deployconv.search.choice import Choice, Choices
from deployconv.search.figures import Figures
from deployconv.search.workbench import Workbench

Found = Mapping[str, Figures]
"""What is known of each site that was looked at, those with the most work first."""


@dataclass(frozen=True)
class Taken:
    """The form of each site that changes, and the ratio of the race that it was taken for."""

    choices: Choices = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)

    def with_all(self, choices: Choices, ratio: float) -> Taken:
        """``choices`` in place of these, taken together where they are others."""
        gains = {
            name: self.gains[name] if self.choices.get(name) == choice else ratio
            for name, choice in choices.items()
        }
        return Taken(choices, gains)

    def only(self, choices: Choices) -> Taken:
        """Those of these that are in ``choices``."""
        return Taken(choices, {name: self.gains[name] for name in choices})


def with_undecided(bench: Workbench, taken: Taken, found: Found, predicted: Choices) -> Taken:
    """``taken``, and what is faster beyond the noise when sites are timed together.

    The model so far is raced with the forms that may be faster by the figures of the undecided
    sites, and with those that the cost model chooses, except where the figures of a site rule
    them out. If neither is faster beyond the noise, the choice of the cost model is taken where
    it was measured to be faster and is not slower, whatever the noise: two witnesses for a gain too
    small for one. That holds beside what is taken already; nothing replaces the original so.
    Else the stronger half of the sites in question is tried, then the rest, as long as there is
    time.

    Raises CheckFailed for a form that computes something else.
    """
    so_far = dict(taken.choices)
    measured = {**so_far, **_hopeful(found)}
    believed = {**so_far, **_believed(found, so_far, predicted)}
    rivals = [measured] if believed in (measured, so_far) else [measured, believed]
    rivals = [rival for rival in rivals if rival != so_far]
    if not rivals:
        return taken
    seconds = max(bench.comparison, bench.left / 2, min(bench.left, bench.telling))
    _, *timings = bench.race([so_far, *rivals], seconds, until_decided=True)
    raced = list(zip(timings, rivals, strict=True))
    faster = [(t.ratio, rival) for t, rival in raced if t.worth]
    if so_far and not faster:
        faster = [(t.ratio, rival) for t, rival in raced if rival == believed and t.likely]
    if faster:
        ratio, best = max(faster, key=lambda pair: pair[0])
        return taken.with_all(best, ratio)
    waiting = _halves({**measured, **believed}, so_far, found)
    while waiting and bench.left >= bench.comparison:
        part = waiting.pop(0)
        trial = {**taken.choices, **part}
        seconds = max(bench.comparison, bench.left / (len(waiting) + 1))
        _, timing = bench.race([taken.choices, trial], seconds, until_decided=True)
        if timing.worth:
            taken = taken.with_all(trial, timing.ratio)
        else:
            waiting[:0] = _halves(part, taken.choices, found)
    return taken


def confirmed(bench: Workbench, taken: Taken) -> Choices:
    """The choices without those that do not hold for the model as a whole, the weakest first."""
    kept = dict(taken.choices)
    weakest_first = sorted(kept, key=taken.gains.__getitem__)
    while kept:
        seconds = bench.comparison + max(0.0, bench.left)
        _, timing = bench.race([None, kept], seconds, until_decided=True)
        if not timing.slower and timing.ratio > 1.0:
            return kept
        del kept[weakest_first.pop(0)]
    return {}


def _hopeful(found: Found) -> dict[str, Choice]:
    """For each undecided site the form that may be faster by its figures."""
    best = {name: figures.hopeful for name, figures in found.items() if figures.undecided}
    return {name: found[name].forms[entry.name] for name, entry in best.items() if entry}


def _believed(found: Found, so_far: Choices, predicted: Choices) -> dict[str, Choice]:
    """What is predicted to be faster, where no figures say otherwise."""
    return {
        name: predicted[name]
        for name, figures in found.items()
        if name in predicted and not figures.rules_out(predicted[name], so_far.get(name))
    }


def _halves(choices: Choices, so_far: Choices, found: Found) -> list[dict[str, Choice]]:
    """The stronger and the weaker half of what is new in ``choices``; none for a single site."""
    new = [name for name in found if name in choices and choices[name] != so_far.get(name)]
    if len(new) < 2:
        return []

    def strength(name: str) -> float:
        figures = found[name].of(choices[name])
        return figures.ratio if figures is not None else 1.0

    # Those that were not timed stay in order: the most work first.
    new.sort(key=strength, reverse=True)
    middle = ceil(len(new) / 2)
    return [{name: choices[name] for name in part} for part in (new[:middle], new[middle:])]
