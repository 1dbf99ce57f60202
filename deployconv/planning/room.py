"""The memory that a model may take for its speed: hardly more than the original.

A form may keep more on the way than the layers it replaces: one Conv a phase in whole above
all, which gains nothing but time. What onnxruntime's arena makes of that, only a run of the
model tells. Where it takes too much, such forms yield to the next fastest, then sites to what
they were, those first that help most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, prod

from deployconv.planning.joint import Found, Taken, confirmed
from deployconv.planning.workbench import Choices, Workbench

MOST = 1.1
"""Times the memory of the original, above which speed is bought too dearly."""

_Lighter = Callable[[Taken, str], Taken]
"""What is left to take where one site yields."""


def confirmed_in_room(
    bench: Workbench, taken: Taken, found: Found
) -> tuple[Choices, frozenset[str]]:
    """What of ``taken`` holds for the model as a whole, in its time and in its memory.

    Second the sites that are as they were for the memory alone. That of a device is not measured.
    """
    kept = confirmed(bench, taken)
    heavy: frozenset[str] = frozenset()
    while kept and bench.tuner.backend == "ort":
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

    def other_form(taken: Taken, name: str) -> Taken:
        return without_split(taken, name, found)

    split = [name for name, choice in taken.choices.items() if choice.whole_split]
    taken = _lightened(bench, taken, split, other_form, unknown=inf)
    return _lightened(bench, taken, list(taken.choices), _as_it_was, unknown=0.0)


def _lightened(
    bench: Workbench, taken: Taken, names: list[str], lighter: _Lighter, unknown: float
) -> Taken:
    """``taken`` with as many of ``names`` made ``lighter`` as it needs to fit.

    ``unknown`` is what counts as its memory where that cannot be told.
    """

    def excess(taken: Taken) -> float:
        times = bench.times_the_memory(taken.choices)
        return max(unknown if times is None else times, MOST) - MOST

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
    winner, halved = figures.winner, replace(choice, halves=True)
    if winner is not None:
        return taken.with_all({**taken.choices, name: figures.forms[winner.name]}, winner.ratio)
    if str(halved) in figures.forms and figures.of(halved) is None:
        return taken.with_all({**taken.choices, name: halved}, taken.gains[name])
    return _as_it_was(taken, name)
