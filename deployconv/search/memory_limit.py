"""Keep the peak memory of the selected forms within the limit that the call sets.

A form may hold more at once than the layers that it replaces, above all one Conv per phase, whose
results are concatenated. How much memory onnxruntime's arena takes for that can only be measured.
If a model is above the limit, sites with one Conv per phase get their next fastest form. If that
is not enough, sites get any form that fits, or stay as they were. The sites that reduce the memory
most come first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import inf, prod

from deployconv.search.choice import Choices, Finalist
from deployconv.search.selection import Selection, Timings, confirm
from deployconv.search.workbench import Workbench

_MOST_FORMS = 4
"""The forms of one site whose peak memory is measured, at the most."""

_Excess = Callable[[Selection], float]
"""How far the peak memory is above the limit, in multiples of that of the original."""
_Replace = Callable[[Selection, str], Selection]
"""Gives one site a form that may need less memory."""


def confirm_within_memory_limit(
    bench: Workbench, last: Sequence[Finalist], timings: Timings, predicted: Choices
) -> tuple[Choices, frozenset[str]]:
    """Confirm that the whole model is faster than the original and needs no more than the limit.

    Returns the choices that hold, and the sites that stay as they were only because of the limit.
    The memory of a device is not measured. ``predicted`` are forms that may be taken unmeasured.
    """
    kept = confirm(bench, last, timings)
    over_limit: frozenset[str] = frozenset()
    while kept and bench.measures_memory:
        within = _within_limit(bench, Selection.of(kept, timings), timings, predicted).choices
        if within == kept:
            break
        over_limit |= kept.keys() - within.keys()
        # Forms that were timed by themselves, if there is no time to compare the whole again.
        compare = bool(within) and bench.fits(0.0)
        kept = confirm(bench, [Finalist(within)], timings) if compare else within
    return kept, over_limit


def _within_limit(
    bench: Workbench, selection: Selection, timings: Timings, predicted: Choices
) -> Selection:
    """The selection without the forms that need too much memory.

    If the memory cannot be measured, no site has one Conv per phase unless that was predicted.
    """
    limit = bench.tuner.max_memory

    def excess(selection: Selection) -> float:
        ratio = bench.memory_ratio(selection.choices)
        if ratio is None:
            return inf if _sites_holding_all_phases(selection, predicted) else 0.0
        return max(ratio, limit) - limit

    def next_form(selection: Selection, name: str) -> Selection:
        return without_all_phases(selection, name, timings)

    def form_that_fits(selection: Selection, name: str) -> Selection:
        for choice, ratio in timings[name].faster[:_MOST_FORMS]:
            other = selection.with_choice(name, choice, ratio)
            if choice != selection.choices[name] and excess(other) == 0:
                return other
        return selection.without(name)

    known = bench.memory_ratio(selection.choices) is not None
    split = _sites_holding_all_phases(selection, {} if known else predicted)
    selection = _reduced(selection, split, next_form, excess)
    return _reduced(selection, selection.choices, form_that_fits, excess)


def _sites_holding_all_phases(selection: Selection, predicted: Choices) -> list[str]:
    """The sites with one Conv per phase whose results are all in memory at once.

    Those in which that is the ``predicted`` form are left out.
    """
    return [
        name
        for name, choice in selection.choices.items()
        if choice.holds_all_phases and predicted.get(name) != choice
    ]


def _reduced(
    selection: Selection, names: Collection[str], replaced: _Replace, excess: _Excess
) -> Selection:
    """The selection with as many of ``names`` replaced as it takes to stay within the limit."""

    def order(name: str) -> tuple[float, float]:
        after = replaced(selection, name)
        return excess(after), -prod(after.speedups.values())

    if not names or excess(selection) == 0:
        return selection
    # By what each would help alone: to try all sets of sites would take too long.
    for name in sorted(names, key=order):
        selection = replaced(selection, name)
        if excess(selection) == 0:
            break
    return selection


def without_all_phases(selection: Selection, name: str, timings: Timings) -> Selection:
    """The selection with the fastest other form of a site that holds all its phases in memory.

    If no other form was timed, half of the channels at a time; else the site as it was.
    """
    site, choice = timings[name], selection.choices[name]
    for other, ratio in site.faster:
        if other != choice:
            return selection.with_choice(name, other, ratio)
    split = replace(choice, channel_split=True)
    if str(split) in site.forms and site.of(split) is None:
        return selection.with_choice(name, split, selection.speedups[name])
    return selection.without(name)
