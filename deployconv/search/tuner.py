"""`--policy fastest`: begin with what is predicted, and take what is measured to be faster.

The cost model, if it is fitted for the backend, chooses a form for each site. Then the forms of one
site after the other are raced against each other: a site with a large part of the time within the
whole model, a smaller one in a small model of its own (`small_model`). Every form is certified
before it is timed. At the end the whole model with the predicted forms, and with those that won,
is compared with the original (`selection.confirm`). What does not hold, or needs too much memory
(`memory_limit`), is dropped.

Nothing begins that is not expected to end within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

from deployconv.results import Candidate, Prediction
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.runtimes.base import ModelSource
from deployconv.search.alone import SmallModels
from deployconv.search.candidates import Candidates
from deployconv.search.choice import AS_IT_WAS, Choice, Choices, Decision, TunerOptions
from deployconv.search.measure import Timing
from deployconv.search.memory_limit import confirm_within_memory_limit
from deployconv.search.selection import SiteTimings, finalists
from deployconv.search.workbench import Workbench

_FIRST_EVALUATION, _LATER_EVALUATION = 3, 9
"""Runs of each model before the first evaluation, and between two later ones."""
_DROWNS = 0.3
"""A site with a smaller part of the predicted time of the model is timed by itself."""

Predict = Callable[[Candidates, TunerOptions], Decision]
"""`cost_model.predict`."""


def tune(
    candidates: Candidates,
    original: ModelSource,
    tuner: TunerOptions,
    predict: Predict | None = None,
) -> Decision:
    """Find the fastest form of every selected site of a model, which is not changed.

    The timings of a site are those of its own race; ``chosen`` marks the form that is taken, also
    if a comparison of several sites decided. A form that is taken without a race of its own has its
    prediction there.

    Raises:
        FormFailed: a form that was about to be timed computes something else.
        UsageError: the inputs do not fit the model.
        BackendUnavailable: the backend cannot run the model.
    """
    bench = Workbench.of(candidates, original, tuner)
    predicted = _predicted(bench, predict)
    # The largest first: later sites are timed together with the forms that these take.
    sites = sorted(
        candidates.planning.default, key=lambda site: _size(site, predicted), reverse=True
    )
    raced = [(site, options) for site in sites if (options := candidates.of_site(site))]
    alone, best = SmallModels(bench), dict(predicted.choices)
    timings: dict[str, SiteTimings] = {}
    for position, (planned, options) in enumerate(raced):
        name = planned.id
        if name not in bench.joined(best):
            forms = {str(option.choice): option.choice for option in options}
            race = _Race(bench, alone, planned, forms, _predicted_ms(predicted, name), best)
            timings[name] = SiteTimings(
                forms, race.run(bench.race_seconds / (len(raced) - position))
            )
            choice = timings[name].best(best.pop(name, None))
            if choice is not None:
                best[name] = choice
        if tuner.on_progress is not None:
            tuner.on_progress((position + 1) / (len(raced) + 1))
    last = finalists(predicted.choices, timings)
    kept, over_limit = confirm_within_memory_limit(bench, last, timings, predicted.choices)
    names = {name: str(kept.get(name, AS_IT_WAS)) for name in timings}
    names |= dict.fromkeys(bench.joined(kept), "none of its own")
    reported = {
        name: site.reported(predicted.candidates.get(name, ()), names[name])
        for name, site in timings.items()
    }
    return Decision(kept, reported, over_limit, bench.compared, frozenset(predicted.choices))


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


@dataclass(frozen=True, eq=False)
class _Race:
    """The forms of one site, timed against each other.

    Attributes:
        bench: times them within the whole model.
        alone: times them without the rest of it.
        planned: the site.
        forms: its forms, by name.
        predicted_ms: their predicted milliseconds, and those of the site as it was.
        choices: the forms of the other sites meanwhile, and the predicted one of this site.
    """

    bench: Workbench
    alone: SmallModels
    planned: PlannedSite
    forms: Mapping[str, Choice]
    predicted_ms: Mapping[str, float]
    choices: Choices

    def run(self, seconds: float) -> tuple[Candidate, ...]:
        """Time the forms, or read the timings from the cache; nothing if there is no time."""
        name, bench = self.planned.id, self.bench
        cached = bench.cached_timings(name)
        if [entry.name for entry in cached] == [AS_IT_WAS, *self.forms]:  # else another version
            return cached
        part = self.predicted_ms.get(AS_IT_WAS, inf) / max(1e3 * bench.run_seconds, 1e-6)
        likely = self._likely(seconds, 1.0)
        timings: Sequence[Timing | None] = []
        if part < _DROWNS or len(likely) < len(self.forms):
            alone = self._likely(seconds - bench.clock.build_seconds, min(part, 1.0))
            if len(alone) >= len(likely) and alone:
                timings = self.alone.compare(self.planned, list(alone.values()), seconds)
                likely = alone if timings else likely
        by_itself = bool(timings)
        if not timings and likely:
            others = {site: choice for site, choice in self.choices.items() if site != name}
            variants = [others, *({**others, name: choice} for choice in likely.values())]
            timings = bench.compare(variants, seconds)
        found = {
            label: Candidate(label, one.median_ms, one.ratio, one.low, one.high, False, by_itself)
            for label, one in zip((AS_IT_WAS, *likely), timings, strict=False)
            if one is not None
        }
        timed = tuple(found[label] for label in (AS_IT_WAS, *self.forms) if label in found)
        if found.keys() >= self.forms.keys():  # else a call with more time can find out more
            bench.store_timings(name, timed)
        return timed

    def _likely(self, seconds: float, part: float) -> Mapping[str, Choice]:
        """The forms to time, the likely fastest first: as many as there is time for.

        ``part`` is the part of the time of the model that the site takes, if it is timed alone.
        """
        run, build = part * self.bench.run_seconds, part * self.bench.clock.build_seconds
        most = len(self.forms)
        while most and _least_runs(most) * run + (most + 1) * build > seconds:
            most -= 1
        taken = str(self.choices.get(self.planned.id, AS_IT_WAS))
        best_first = sorted(
            self.forms, key=lambda name: (name != taken, self.predicted_ms.get(name, inf))
        )
        return {name: self.forms[name] for name in best_first[:most]}


def _least_runs(forms: int) -> int:
    """The runs of all models in two evaluations of so many forms; see `time_against_first`."""
    first = _FIRST_EVALUATION * (forms + 1) if forms > 1 else 0
    return first + _LATER_EVALUATION * (ceil(forms / 2) + 1)
