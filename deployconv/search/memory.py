"""The memory that a model may take for its speed: hardly more than the original.

A form may keep more on the way than the layers it replaces: one Conv a phase in whole above
all, which gains nothing but time. What onnxruntime's arena makes of that, only a run of the
model tells. Where it takes too much, such forms yield to the next fastest, then all to one that
fits or to what the site was, those first that help most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, isinf, prod

from deployconv.runtimes import get_runtime
from deployconv.search.choice import Choices
from deployconv.search.joint import Found, Taken, confirmed
from deployconv.search.workbench import Workbench

_MOST_FORMS = 4
"""Of a site that are tried for their memory."""

_Excess = Callable[[Taken], float]
"""Times the memory of the original that a model takes beyond what it may."""
_Lighter = Callable[[Taken, str], Taken]
"""What is left to take where one site yields."""


def confirmed_in_memory(
    bench: Workbench, taken: Taken, found: Found
) -> tuple[Choices, frozenset[str]]:
    """What of ``taken`` holds for the model as a whole, in its time and in its memory.

    Second the sites that are as they were for the memory alone. That of a device is not measured.
    """
    kept = confirmed(bench, taken)
    heavy: frozenset[str] = frozenset()
    measures = get_runtime(bench.tuner.backend).measures_memory
    while kept and measures and not isinf(bench.tuner.max_memory):
        taken = _fitting(bench, taken.only(kept), found)
        if taken.choices == kept:
            break
        heavy |= kept.keys() - taken.choices.keys()
        kept = confirmed(bench, taken)
    return kept, heavy


def _fitting(bench: Workbench, taken: Taken, found: Found) -> Taken:
    """``taken`` without what needs too much memory.

    Where that cannot be told, without one Conv a phase in whole.
    """
    most = bench.tuner.max_memory

    def excess(taken: Taken) -> float:
        times = bench.times_the_memory(taken.choices)
        if times is None:
            return inf if _split(taken) else 0.0
        return max(times, most) - most

    def next_form(taken: Taken, name: str) -> Taken:
        return without_split(taken, name, found)

    def form_that_fits(taken: Taken, name: str) -> Taken:
        for choice, gain in found[name].winners[:_MOST_FORMS]:
            other = taken.with_all({**taken.choices, name: choice}, gain)
            if choice != taken.choices[name] and excess(other) == 0:
                return other
        return _as_it_was(taken, name)

    taken = _lightened(taken, _split(taken), next_form, excess)
    return _lightened(taken, list(taken.choices), form_that_fits, excess)


def _split(taken: Taken) -> list[str]:
    """The sites with one Conv a phase in whole."""
    return [name for name, choice in taken.choices.items() if choice.holds_all_phases]


def _lightened(taken: Taken, names: list[str], lighter: _Lighter, excess: _Excess) -> Taken:
    """``taken`` with as many of ``names`` made ``lighter`` as it needs to fit."""

    def yielded(name: str) -> tuple[float, float]:
        left = lighter(taken, name)
        return excess(left), -prod(left.gains.values())

    if not names or excess(taken) == 0:
        return taken
    # In the order that one alone would help; that of all sets would take too long.
    for name in sorted(names, key=yielded):
        taken = lighter(taken, name)
        if excess(taken) == 0:
            break
    return taken


def _as_it_was(taken: Taken, name: str) -> Taken:
    return taken.only({site: choice for site, choice in taken.choices.items() if site != name})


def without_split(taken: Taken, name: str, found: Found) -> Taken:
    """``taken`` with the fastest other form of a site that has one Conv a phase in whole.

    Where no other was timed, that is the same in halves.
    """
    choice = taken.choices[name]
    figures = found[name].without(choice)
    halved = replace(choice, channel_split=True)
    if figures.winners:
        other, gain = figures.winners[0]
        return taken.with_all({**taken.choices, name: other}, gain)
    if str(halved) in figures.forms and figures.of(halved) is None:
        return taken.with_all({**taken.choices, name: halved}, taken.gains[name])
    return _as_it_was(taken, name)
