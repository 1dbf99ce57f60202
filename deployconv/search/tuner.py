"""`--policy fastest`: each site takes the form that is measured to be fastest, or none.

Forms are timed in place, as the whole model with one site changed, against the best model so
far. Only what is faster beyond the noise replaces anything. Sites whose gain drowns in the
noise of the whole model are then timed together (`joint`), and at the end the whole model is
timed against the original: what does not hold is taken back, and so is what needs much more
memory (`memory`). Every form is certified before it is timed, and its outputs are compared with the
original's.

Where the backend has a cost model, its prediction is one more model to race, and where runs
are long for the time there is, only the forms of which it promises most are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil, inf

from deployconv.options import FeedOptions
from deployconv.results import Candidate, Prediction
from deployconv.rewrites.planning import PlannedSite
from deployconv.runtimes.base import ModelSource
from deployconv.search.candidates import Candidates
from deployconv.search.choice import AS_IT_WAS, Choice, Choices, Tuned, TunerOptions
from deployconv.search.figures import Figures
from deployconv.search.joint import Taken, with_undecided
from deployconv.search.memory import confirmed_in_memory
from deployconv.search.workbench import Workbench

_SHORTEST = 0.3
"""Seconds for the forms of one site, at the least."""
_FIRST_LOOK, _LATER_LOOK = 3, 7
"""Runs of each model until all are looked at for the first time, and between two later looks."""
_MOST_JOINT = 1 / 3
"""Of the budget is kept for sites that are undecided by themselves, at the most."""


Predict = Callable[[Candidates, TunerOptions], Tuned]
"""`cost_model.predict`."""


def tune(
    candidates: Candidates,
    original: ModelSource,
    tuner: TunerOptions,
    predict: Predict | None = None,
) -> Tuned:
    """Find the fastest form of every selected site of a model, which is not changed.

    The figures of a site are those of its own race; ``chosen`` marks what was taken, also where
    that was measured together with other sites. A form that was taken without a race of its
    own has its prediction there.

    Raises:
        CheckFailed: a form that was about to be timed computes something else.
        UsageError: the inputs do not fit the model.
        BackendUnavailable: the backend cannot run the model.
    """
    bench = Workbench.of(candidates, original, tuner)
    predicted = _predicted(bench, predict)
    forms = {
        planned.id: {str(option.choice): option.choice for option in offered}
        for planned in sorted(candidates.planning.default, key=_size(predicted), reverse=True)
        if (offered := candidates.of_site(planned))
    }
    taken = Taken()
    found: dict[str, Figures] = {}
    # The largest first: later ones are timed beside what it has become.
    for position, (name, allowed) in enumerate(forms.items()):
        if name in bench.joined(taken.choices):
            continue
        undecided = any(figures.undecided for figures in found.values())
        kept_back = min(bench.telling, _MOST_JOINT * tuner.budget) if undecided else 0.0
        seconds = max(_SHORTEST, (bench.left - kept_back) / (len(forms) - position))
        timed = bench.remembered(name)
        if [entry.name for entry in timed] != [AS_IT_WAS, *allowed]:  # or by another version
            predictions = predicted.candidates.get(name, ())
            likely = _likely(allowed, predictions, seconds, bench.run_seconds)
            timed = _race(bench, name, likely, taken.choices, seconds)
            if likely == allowed:  # else there is more to find out, with more time
                bench.remember(name, timed)
        found[name] = Figures(allowed, timed)
        if winners := found[name].winners:
            choice, ratio = winners[0]
            taken = taken.with_all({**taken.choices, name: choice}, ratio)
        if tuner.on_progress is not None:
            tuner.on_progress((position + 1) / (len(forms) + 1))
    taken = with_undecided(bench, taken, found, predicted.choices)
    kept, heavy = confirmed_in_memory(bench, taken, found)
    names = {name: str(kept.get(name, AS_IT_WAS)) for name in found}
    names |= dict.fromkeys(bench.joined(kept), "none of its own")
    shown = {
        name: figures.shown(predicted.candidates.get(name, ()), names[name])
        for name, figures in found.items()
    }
    return Tuned(kept, shown, heavy)


def _predicted(bench: Workbench, predict: Predict | None) -> Tuned:
    """What the cost model says, for the very sizes that are timed."""
    if predict is None:
        return Tuned()
    shapes = {name: array.shape for name, array in bench.feeds.items()}
    return predict(bench.candidates, replace(bench.tuner, feed=FeedOptions(shapes)))


def _likely(
    forms: Mapping[str, Choice],
    predictions: Sequence[Candidate | Prediction],
    seconds: float,
    run_seconds: float,
) -> Mapping[str, Choice]:
    """The forms to time: all, or those that are predicted to be fastest where runs are few."""
    promise = {
        entry.name: entry.predicted_ms for entry in predictions if isinstance(entry, Prediction)
    }
    most = len(forms)
    while most and _least_runs(most) * run_seconds > seconds:
        most -= 1
    if not promise or most == len(forms):
        return forms
    best_first = sorted(forms, key=lambda name: promise.get(name, inf))
    return {name: forms[name] for name in best_first[:most]}


def _least_runs(rivals: int) -> int:
    """Runs of all models for two looks at so many forms beside the model so far; see `race`."""
    first = _FIRST_LOOK * (rivals + 1) if rivals > 1 else 0
    return first + _LATER_LOOK * (ceil(rivals / 2) + 1)


def _race(
    bench: Workbench, name: str, forms: Mapping[str, Choice], choices: Choices, seconds: float
) -> tuple[Candidate, ...]:
    """Time the forms of one site in place, the others as chosen so far."""
    if not forms:
        return ()
    variants = [choices, *({**choices, name: choice} for choice in forms.values())]
    timings = bench.race(variants, seconds)
    return tuple(
        Candidate(label, timing.median_ms, timing.ratio, timing.low, timing.high, False)
        for label, timing in zip((AS_IT_WAS, *forms), timings, strict=True)
    )


def _size(predicted: Tuned) -> Callable[[PlannedSite], tuple[float, int]]:
    """How much there is to gain at a site: its time where that is predicted, then its work."""

    def size(planned: PlannedSite) -> tuple[float, int]:
        predictions = predicted.candidates.get(planned.report.id, ())
        as_it_was = (
            entry.predicted_ms
            for entry in predictions
            if isinstance(entry, Prediction) and entry.name == AS_IT_WAS
        )
        macs = planned.report.macs
        return next(as_it_was, 0.0), macs.before if macs is not None else 0

    return size
