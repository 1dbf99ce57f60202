"""`--policy fastest`: each site takes the form that is measured to be fastest, or stays as it is.

Forms are timed within the whole model with one site changed, against the best model so far. A
form is selected only if its confidence interval shows that it is faster. Sites that are too small
for that are timed together (`selection`). At the end the whole model is timed against the original,
and forms that do not hold, or need too much memory (`memory_limit`), are dropped. Every form is
certified before it is timed, and its outputs are compared with those of the original.

If the backend has a fitted cost model, its choice is one more candidate. If runs are long for the
time that there is, only the forms that it predicts to be fastest are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, inf

from deployconv.results import Candidate, Prediction
from deployconv.rewrites.planning import PlannedSite
from deployconv.runtimes.base import ModelSource
from deployconv.search.candidates import Candidates
from deployconv.search.choice import AS_IT_WAS, Choice, Choices, Decision, TunerOptions
from deployconv.search.memory_limit import confirm_within_memory_limit
from deployconv.search.selection import Selection, SiteTimings, select_jointly
from deployconv.search.workbench import Workbench

_SHORTEST = 0.3
"""Seconds for the forms of one site, at the least."""
_FIRST_EVALUATION, _LATER_EVALUATION = 3, 7
"""Runs of each model before the first evaluation, and between two later ones."""
_MOST_JOINT = 1 / 3
"""The part of the budget that is kept for the joint comparison, at the most."""

Predict = Callable[[Candidates, TunerOptions], Decision]
"""`cost_model.predict`."""


def tune(
    candidates: Candidates,
    original: ModelSource,
    tuner: TunerOptions,
    predict: Predict | None = None,
) -> Decision:
    """Find the fastest form of every selected site of a model, which is not changed.

    The timings of a site are those of its own comparison; ``chosen`` marks the form that is taken,
    also if a comparison of several sites decided. A form that is taken without a comparison of its
    own has its prediction there.

    Raises:
        CheckFailed: a form that was about to be timed computes something else.
        UsageError: the inputs do not fit the model.
        BackendUnavailable: the backend cannot run the model.
    """
    bench = Workbench.of(candidates, original, tuner)
    predicted = _predicted(bench, predict)
    # The largest first: later sites are timed together with the forms that these take.
    sites = sorted(
        candidates.planning.default, key=lambda site: _size(site, predicted), reverse=True
    )
    forms = {
        planned.id: {str(option.choice): option.choice for option in options}
        for planned in sites
        if (options := candidates.of_site(planned))
    }
    selection = Selection()
    timings: dict[str, SiteTimings] = {}
    for position, (name, allowed) in enumerate(forms.items()):
        if name in bench.joined(selection.choices):
            continue
        undecided = any(site.undecided for site in timings.values())
        kept_back = min(bench.long_comparison, _MOST_JOINT * tuner.budget) if undecided else 0.0
        seconds = max(_SHORTEST, (bench.seconds_left - kept_back) / (len(forms) - position))
        predicted_ms = _predicted_ms(predicted, name)
        timed = _time_site(bench, name, allowed, selection.choices, predicted_ms, seconds)
        timings[name] = SiteTimings(allowed, timed)
        if faster := timings[name].faster:
            selection = selection.with_choice(name, *faster[0])
        if tuner.on_progress is not None:
            tuner.on_progress((position + 1) / (len(forms) + 1))
    selection = select_jointly(bench, selection, timings, predicted.choices)
    kept, over_limit = confirm_within_memory_limit(bench, selection, timings)
    names = {name: str(kept.get(name, AS_IT_WAS)) for name in timings}
    names |= dict.fromkeys(bench.joined(kept), "none of its own")
    reported = {
        name: site.reported(predicted.candidates.get(name, ()), names[name])
        for name, site in timings.items()
    }
    return Decision(kept, reported, over_limit)


def _predicted(bench: Workbench, predict: Predict | None) -> Decision:
    """What the cost model chooses for the sizes that are timed; nothing without a cost model."""
    if predict is None:
        return Decision()
    return predict(bench.candidates, bench.tuner)


def _predicted_ms(predicted: Decision, site: str) -> dict[str, float]:
    """The predicted milliseconds of each form of a site."""
    return {
        entry.name: entry.predicted_ms
        for entry in predicted.candidates.get(site, ())
        if isinstance(entry, Prediction)
    }


def _size(planned: PlannedSite, predicted: Decision) -> tuple[float, int]:
    """The predicted time and the multiplications of a site as it was; 0 if not known."""
    macs = planned.report.macs
    predicted_ms = _predicted_ms(predicted, planned.id).get(AS_IT_WAS, 0.0)
    return predicted_ms, macs.before if macs is not None else 0


def _time_site(
    bench: Workbench,
    name: str,
    forms: Mapping[str, Choice],
    choices: Choices,
    predicted_ms: Mapping[str, float],
    seconds: float,
) -> tuple[Candidate, ...]:
    """Time the forms of one site, the other sites as chosen so far; or read it from the cache."""
    cached = bench.cached_timings(name)
    if [entry.name for entry in cached] == [AS_IT_WAS, *forms]:  # else of another version
        return cached
    likely = _likely(forms, predicted_ms, seconds, bench.run_seconds)
    if not likely:
        return ()
    variants = [choices, *({**choices, name: choice} for choice in likely.values())]
    timed = tuple(
        Candidate(label, timing.median_ms, timing.ratio, timing.low, timing.high, chosen=False)
        for label, timing in zip(
            (AS_IT_WAS, *likely), bench.compare(variants, seconds), strict=True
        )
    )
    if likely == forms:  # else a call with more time can find out more
        bench.store_timings(name, timed)
    return timed


def _likely(
    forms: Mapping[str, Choice],
    predicted_ms: Mapping[str, float],
    seconds: float,
    run_seconds: float,
) -> Mapping[str, Choice]:
    """The forms to time: all, or if there is time for a few runs only, the likely fastest."""
    most = len(forms)
    while most and _least_runs(most) * run_seconds > seconds:
        most -= 1
    if not predicted_ms or most == len(forms):
        return forms
    best_first = sorted(forms, key=lambda name: predicted_ms.get(name, inf))
    return {name: forms[name] for name in best_first[:most]}


def _least_runs(forms: int) -> int:
    """The runs of all models in two evaluations of so many forms; see `time_against_first`."""
    first = _FIRST_EVALUATION * (forms + 1) if forms > 1 else 0
    return first + _LATER_EVALUATION * (ceil(forms / 2) + 1)
