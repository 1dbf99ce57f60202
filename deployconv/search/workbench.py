"""Build variants of one model, verify them and time them against each other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from deployconv.errors import CheckFailed
from deployconv.graph.save import staged
from deployconv.proof.certificate import certify, folder_name
from deployconv.proof.compare import compare_outputs
from deployconv.proof.inputs import make_feeds
from deployconv.proof.parity import check_parity
from deployconv.results import Candidate, OutputParity
from deployconv.rewrites.planning import apply
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Array, ModelSource, Session
from deployconv.runtimes.measure import describe_machine, peak_memory
from deployconv.search.cache import Key, TimingCache
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, Choices, TunerOptions
from deployconv.search.measure import Timing, time_against_first

_SHORTEST = 3.0
"""Seconds for a comparison of two models, at the least."""
_SHORTEST_LONG = 1.0
"""Seconds for one that detects small gains, at the least: runs may be short."""
_SIX_ROUNDS, _TWELVE_ROUNDS = 14, 26
"""Runs of two models in six and in twelve rounds, warm-up runs included."""


@dataclass(frozen=True, eq=False)
class Workbench:
    """Builds variants of one model and times them.

    Attributes:
        candidates: the sites of the model and their forms.
        source: the original, as the backend takes it.
        original: its session.
        tuner: how to measure.
        feeds: the inputs of every run.
        expected: the outputs of the original.
        run_seconds: how long a run of the original takes.
        deadline: when the time to measure is over, on the clock `time.monotonic`.
        cache: stores timings for later calls.
    """

    candidates: Candidates
    source: ModelSource
    original: Session
    tuner: TunerOptions
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    run_seconds: float
    deadline: float
    cache: TimingCache
    _certified: set[tuple[str, Choice]] = field(default_factory=set)
    _peaks: dict[frozenset[tuple[str, Choice]], int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, candidates: Candidates, original: ModelSource, tuner: TunerOptions) -> Workbench:
        """Load the original, run it and start the time to measure.

        Raises:
            UsageError: the inputs do not fit the model.
            BackendUnavailable: the backend cannot run the model.
        """
        session = get_backend(tuner.backend).prepare(original, threads=tuner.threads)
        feeds = make_feeds(session.inputs, tuner.feed).arrays
        cache = TimingCache.of_user() if tuner.cache else TimingCache(None)
        deadline = time.monotonic() + tuner.budget
        expected = session.run(feeds)
        # A session still takes memory in its second run.
        run = min(_seconds(session, feeds) for _ in range(2))
        return cls(candidates, original, session, tuner, feeds, expected, run, deadline, cache)

    @property
    def seconds_left(self) -> float:
        """Seconds until the time to measure is over, less those of a last comparison."""
        return self.deadline - time.monotonic() - self.short_comparison

    @property
    def short_comparison(self) -> float:
        """Seconds for six rounds of two models, the fewest that give a confidence interval."""
        return max(_SHORTEST, _SIX_ROUNDS * self.run_seconds)

    @property
    def long_comparison(self) -> float:
        """Seconds for twelve rounds of two models, which distinguish small gains from noise."""
        return max(_SHORTEST_LONG, _TWELVE_ROUNDS * self.run_seconds)

    def joined(self, choices: Choices) -> set[str]:
        """The sites that the rewrites of others replace."""
        sites = self.candidates.with_choices(choices).sites
        return {planned.id for planned in sites if planned.joined is not None}

    def compare(
        self,
        variants: Sequence[Choices | None],
        seconds: float,
        until_decided: bool = False,
    ) -> list[Timing]:
        """Time the model with each of these choices against the first; None is the original.

        Raises CheckFailed for a variant that computes something else than the original.
        """
        for choices in variants:
            self._certify(choices or {})
        with ExitStack() as stack:
            sessions = [
                self.original if choices is None else self._variant(choices, stack)
                for choices in variants
            ]
            return time_against_first(sessions, self.feeds, seconds, until_decided)

    def memory_ratio(self, choices: Choices) -> float | None:
        """Peak memory with ``choices``, divided by that without any; None if not measurable."""
        before, after = self._peak({}), self._peak(choices)
        return after / before if before and after else None

    def _peak(self, choices: Choices) -> int | None:
        """The peak memory with ``choices`` in bytes; each set of choices is measured once."""
        key = frozenset(choices.items())
        if key not in self._peaks:
            with ExitStack() as stack:
                path = self._written(choices, stack)
                self._peaks[key] = peak_memory(
                    path, self.feeds, self.original.threads, self.tuner.backend
                )
        return self._peaks[key]

    def _certify(self, choices: Choices) -> None:
        """Raise CheckFailed unless every form in ``choices`` has its certificate."""
        for planned in self.candidates.planning.default:
            name = planned.id
            choice = choices.get(name)
            if choice is None or (name, choice) in self._certified:
                continue
            rewrite = self.candidates.option(planned, choice).rewrite
            found = certify(rewrite, name, self.tuner.feed.seed)
            if found.failure is not None:
                if self.tuner.dump is not None:
                    found.dump(self.tuner.dump / folder_name(name, set()))
                raise CheckFailed(
                    f"{name}: certificate failed for {choice} ({found.failure}): nothing was"
                    " written"
                )
            self._certified.add((name, choice))

    def _variant(self, choices: Choices, stack: ExitStack) -> Session:
        """A session of the model with ``choices`` whose outputs are those of the original."""
        path = self._written(choices, stack)
        session = get_backend(self.tuner.backend).prepare(path, threads=self.tuner.threads)
        self._check_outputs(session, path, choices)
        return session

    def _written(self, choices: Choices, stack: ExitStack) -> Path:
        """A file with the model with ``choices``; it is deleted when ``stack`` closes."""
        after = apply(self.candidates.with_choices(choices))
        folder = self.candidates.model.folder
        return stack.enter_context(staged(after.proto, folder, None, after.added)).path

    def _check_outputs(self, session: Session, path: Path, choices: Choices) -> None:
        """Raise CheckFailed unless the outputs are those of the original."""
        outputs = compare_outputs(self.expected, session.run(self.feeds))
        if not all(output.passed for output in outputs):
            # The difference may be the model's own rounding, which `check_parity` measures.
            feed, threads = self.tuner.feed, self.tuner.threads
            backend, allowed = self.tuner.backend, self.candidates.planning.options.allow_requantize
            outputs = check_parity(
                self.source, path, backend, feed, threads, allowed, other_sizes=False
            ).outputs
        for output in outputs:
            if not output.passed:
                made = ", ".join(f"{name} ({choice})" for name, choice in choices.items())
                raise CheckFailed(
                    f"parity failed with {made or 'nothing changed'}: output '{output.name}':"
                    f" {_difference(output)}: nothing was written"
                )

    def cached_timings(self, site: str) -> tuple[Candidate, ...]:
        """The timings of a site from an earlier call; empty if there are none."""
        return self.cache.read(self._key(site)) or ()

    def store_timings(self, site: str, timed: tuple[Candidate, ...]) -> None:
        """Store the timings of a site for later calls."""
        self.cache.write(self._key(site), timed)

    def _key(self, site: str) -> Key:
        # A form is timed within the whole model, so its timing depends on the model as well.
        info = self.candidates.model.info
        return Key(
            model=info.sha256,
            site=site,
            options=str(self.candidates.planning.options),
            shapes=tuple(array.shape for array in self.feeds.values()),
            opset=info.opset,
            backend=self.tuner.backend,
            runtime=get_backend(self.tuner.backend).runtime,
            machine=describe_machine(),
            threads=self.original.threads,
        )


def _seconds(session: Session, feeds: Mapping[str, Array]) -> float:
    """How long a run takes, roughly."""
    start = time.monotonic()
    session.run(feeds)
    return time.monotonic() - start


def _difference(output: OutputParity) -> str:
    return output.problem or f"max |difference| {output.max_abs:.3g} > {output.tolerance:.3g}"
