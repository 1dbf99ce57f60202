"""`--policy fastest`: each site takes the form that is measured to be fastest, or none.

Forms are timed in place, as the whole model with one site changed, against the best model so
far. Only what is faster beyond the noise replaces anything, and at the end the whole model is
timed against the original: what does not hold is taken back. Every form is certified before
it is timed, and its outputs are compared with the original's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnx import ModelProto

from deployconv.backends import get_backend
from deployconv.backends.base import Array, ModelSource, Session
from deployconv.backends.machine import describe_machine
from deployconv.errors import CheckFailed
from deployconv.model.load import LoadedModel
from deployconv.model.save import staged
from deployconv.options import FeedOptions, RewriteOptions
from deployconv.pipeline import Planned, Planning, apply, not_selected, peers, plan_model
from deployconv.planning.cache import Key, TimingCache
from deployconv.planning.candidates import Choice, Option, options_for
from deployconv.planning.race import Timing, race
from deployconv.proof.certificate import certify
from deployconv.proof.compare import compare_outputs
from deployconv.proof.inputs import make_feeds
from deployconv.proof.parity import check_parity
from deployconv.results import Candidate, OutputParity, Prediction

_CONFIRM = 3.0
"""Seconds for a comparison of the whole model with the original."""
_SHORTEST = 0.3
"""Seconds for the forms of one site, at the least."""


@dataclass(frozen=True)
class TunerOptions:
    """How long to measure, on what, and whether to remember it."""

    backend: str = "ort"
    threads: int | None = None
    feed: FeedOptions = field(default_factory=FeedOptions)
    budget: float = 60.0
    cache: bool = True
    on_progress: Callable[[float], None] | None = None
    """Called with the part that is done, 0 to 1."""


@dataclass(frozen=True)
class Tuned:
    """The form of each site that changes, by its id, and what is known of all forms."""

    choices: Mapping[str, Choice]
    candidates: Mapping[str, tuple[Candidate | Prediction, ...]]


def tune(
    model: LoadedModel, original: ModelSource, options: RewriteOptions, tuner: TunerOptions
) -> Tuned:
    """Find the fastest form of every selected site of ``model``, which is not changed.

    Raises:
        CheckFailed: a form that was about to be timed computes something else.
        UsageError: the inputs do not fit the model.
        BackendUnavailable: the backend cannot run the model.
    """
    bench = _Bench.of(model, original, options, tuner)
    selected = [planned for planned in bench.planning.sites if bench.options_of(planned)]
    # The largest first: later ones are timed beside what it has become.
    selected.sort(key=_work, reverse=True)
    choices: dict[str, Choice] = {}
    measured: dict[str, tuple[Candidate, ...]] = {}
    for position, planned in enumerate(selected):
        if planned.report.id in bench.joined(choices):
            continue
        seconds = bench.share(len(selected) - position)
        timed = bench.cached(planned) or bench.time_site(planned, choices, seconds)
        measured[planned.report.id] = timed
        winner = _winner(timed, bench.options_of(planned))
        if winner is not None:
            choices[planned.report.id] = winner
        if tuner.on_progress is not None:
            tuner.on_progress((position + 1) / (len(selected) + 1))
    gains = {name: _gain(measured[name], choice) for name, choice in choices.items()}
    kept = bench.confirmed(choices, gains)
    taken = {name: str(kept.get(name, _AS_IT_WAS)) for name in measured}
    taken |= dict.fromkeys(bench.joined(kept), "none of its own")
    return Tuned(kept, {name: _marked(timed, taken[name]) for name, timed in measured.items()})


@dataclass(frozen=True, eq=False)
class _Bench:
    """Builds variants of one model and times them."""

    model: LoadedModel
    planning: Planning
    source: ModelSource
    original: Session
    options: RewriteOptions
    tuner: TunerOptions
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    cache: TimingCache
    deadline: float

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        original: ModelSource,
        options: RewriteOptions,
        tuner: TunerOptions,
    ) -> _Bench:
        session = get_backend(tuner.backend).prepare(original, threads=tuner.threads)
        feeds = make_feeds(session.inputs, tuner.feed).arrays
        cache = TimingCache.of_user() if tuner.cache else TimingCache(None)
        deadline = time.monotonic() + tuner.budget
        expected = session.run(feeds)
        planning = plan_model(model, options)
        return cls(
            model, planning, original, session, options, tuner, feeds, expected, cache, deadline
        )

    def share(self, sites_left: int) -> float:
        """Seconds for the next site."""
        left = self.deadline - time.monotonic() - _CONFIRM
        return max(_SHORTEST, left / sites_left)

    def options_of(self, planned: Planned) -> list[Option]:
        """The forms of a site that the call allows."""
        barred = not_selected(self.planning.sites)
        if id(planned.site.layer) in barred:
            return []
        asked = self.options
        others = peers(self.planning.sites, barred)
        return options_for(planned, self.planning.view, barred, asked.form, asked.shuffle, others)

    def joined(self, choices: Mapping[str, Choice]) -> set[str]:
        """The sites that have become part of another's chain."""
        sites = plan_model(self.model, self.options, choices).sites
        return {planned.report.id for planned in sites if planned.head is not None}

    def cached(self, planned: Planned) -> tuple[Candidate, ...] | None:
        """What was measured before for a layer like this one."""
        return self.cache.read(self._key(planned))

    def time_site(
        self, planned: Planned, choices: Mapping[str, Choice], seconds: float
    ) -> tuple[Candidate, ...]:
        """Every form of one site in place, the others as chosen so far."""
        site = planned.site
        options = self.options_of(planned)
        for option in options:
            if certify(option.subject, option.plan, self.tuner.feed.seed) != "exact":
                raise CheckFailed(
                    f"{site.id}: certificate failed for {option.choice}: nothing was written"
                )
        with ExitStack() as variants:
            sessions = [self._variant(choices, variants)]
            for option in options:
                sessions.append(self._variant({**choices, site.id: option.choice}, variants))
            timings = race(sessions, self.feeds, seconds)
        found = tuple(
            _candidate(name, timing)
            for name, timing in zip(
                [_AS_IT_WAS, *(str(option.choice) for option in options)], timings, strict=True
            )
        )
        self.cache.write(self._key(planned), found)
        return found

    def confirmed(
        self, choices: Mapping[str, Choice], gains: Mapping[str, float]
    ) -> dict[str, Choice]:
        """``choices`` without those that do not hold for the model as a whole."""
        kept = dict(choices)
        weakest_first = sorted(kept, key=gains.__getitem__)
        while kept:
            with ExitStack() as variants:
                final = self._variant(kept, variants)
                _, timing = race([self.original, final], self.feeds, _CONFIRM)
            if not timing.slower and timing.ratio > 1.0:
                return kept
            del kept[weakest_first.pop(0)]
        return {}

    def _variant(self, choices: Mapping[str, Choice], stack: ExitStack) -> Session:
        """The model with ``choices`` made, ready to run and proved to compute the same."""
        proto = ModelProto()
        proto.CopyFrom(self.model.proto)
        planning = plan_model(replace(self.model, proto=proto), self.options, choices)
        added = apply(planning)
        written = stack.enter_context(staged(proto, self.model.folder, None, added))
        session = get_backend(self.tuner.backend).prepare(written.path, threads=self.tuner.threads)
        self._compare(session, written.path, choices)
        return session

    def _compare(self, session: Session, path: Path, choices: Mapping[str, Choice]) -> None:
        """Raise CheckFailed unless the variant computes what the original does."""
        outputs = compare_outputs(self.expected, session.run(self.feeds))
        if not all(output.passed for output in outputs):
            # A model that moves by its own rounding is judged by how far: see `check_parity`.
            feed, threads = self.tuner.feed, self.tuner.threads
            backend, allowed = self.tuner.backend, self.options.allow_requantize
            outputs = check_parity(self.source, path, backend, feed, threads, allowed).outputs
        for output in outputs:
            if not output.passed:
                made = ", ".join(f"{name} ({choice})" for name, choice in choices.items())
                raise CheckFailed(
                    f"parity failed with {made or 'nothing changed'}: output '{output.name}':"
                    f" {_difference(output)}: nothing was written"
                )

    def _key(self, planned: Planned) -> Key:
        # Timed in place, a figure belongs to the model as well as to the layer.
        return Key(
            model=self.model.info.sha256,
            site=planned.report.id,
            options=str(self.options),
            shapes=tuple(array.shape for array in self.feeds.values()),
            opset=self.model.info.opset,
            backend=self.tuner.backend,
            runtime=get_backend(self.tuner.backend).runtime,
            machine=describe_machine(),
            threads=self.original.threads,
        )


_AS_IT_WAS = "as it was"
"""The first in every race: the model with this site unchanged."""
_MARGIN = 0.01
"""A gain below this is not worth another graph."""


def _work(planned: Planned) -> int:
    return planned.report.macs.before if planned.report.macs else 0


def _candidate(name: str, timing: Timing) -> Candidate:
    return Candidate(name, timing.median_ms, timing.ratio, timing.low, timing.high, False)


def _winner(timed: tuple[Candidate, ...], options: list[Option]) -> Choice | None:
    """The fastest form, if it is faster beyond the noise than the site as it was."""
    named = {str(option.choice): option.choice for option in options}
    faster = [entry for entry in timed if entry.low > 1.0 + _MARGIN and entry.name in named]
    best = max(faster, key=lambda entry: entry.ratio, default=None)
    return None if best is None else named[best.name]


def _gain(timed: tuple[Candidate, ...], choice: Choice) -> float:
    return max(entry.ratio for entry in timed if entry.name == str(choice))


def _marked(timed: tuple[Candidate, ...], taken: str) -> tuple[Candidate, ...]:
    """The figures with a mark at the form that was taken."""
    return tuple(replace(entry, chosen=entry.name == taken) for entry in timed)


def _difference(output: OutputParity) -> str:
    return output.problem or f"max |difference| {output.max_abs:.3g} > {output.tolerance:.3g}"
