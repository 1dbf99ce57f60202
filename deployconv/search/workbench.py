"""Variants of one model, each proved before it is timed."""

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

_CONFIRM = 3.0
"""Seconds for a comparison of two models whose runs are short."""
_SHORT = 1.0
"""Seconds that are kept back for a comparison, at the least."""
_SIX_ROUNDS, _TWELVE_ROUNDS = 14, 26
"""Runs of two models for so many rounds, warm-up runs included."""


@dataclass(frozen=True, eq=False)
class Workbench:
    """Builds variants of one model and times them.

    Attributes:
        candidates: the sites of the model and their forms.
        source: the original for the backend.
        original: the same, loaded there.
        tuner: how to measure.
        feeds: what every variant runs on.
        expected: what the original computes of ``feeds``.
        run_seconds: how long that takes.
        deadline: when the time to measure is over.
        cache: keeps what was measured.
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
        """Load the original and run it.

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
    def left(self) -> float:
        """Seconds until the time to measure is over, less what a last comparison takes."""
        return self.deadline - time.monotonic() - self.comparison

    @property
    def comparison(self) -> float:
        """Seconds for a comparison of two models, at the least."""
        return max(_CONFIRM, _SIX_ROUNDS * self.run_seconds)

    @property
    def telling(self) -> float:
        """Seconds for a comparison that tells a small gain from the noise."""
        return max(_SHORT, _TWELVE_ROUNDS * self.run_seconds)

    def joined(self, choices: Choices) -> set[str]:
        """The sites that the rewrites of others replace."""
        sites = self.candidates.with_choices(choices).sites
        return {planned.id for planned in sites if planned.joined is not None}

    def race(
        self,
        variants: Sequence[Choices | None],
        seconds: float,
        until_decided: bool = False,
    ) -> list[Timing]:
        """Time the model with each of these choices made; None stands for the original.

        Raises CheckFailed for one that computes something else than the original.
        """
        for choices in variants:
            self._certify(choices or {})
        with ExitStack() as stack:
            sessions = [
                self.original if choices is None else self._variant(choices, stack)
                for choices in variants
            ]
            return time_against_first(sessions, self.feeds, seconds, until_decided)

    def times_the_memory(self, choices: Choices) -> float | None:
        """Peak memory with ``choices`` made, as a multiple of that without any.

        None if it cannot be measured.
        """
        before, after = self._peak({}), self._peak(choices)
        return after / before if before and after else None

    def _peak(self, choices: Choices) -> int | None:
        """Bytes on the backend, measured once."""
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
        """The model with ``choices`` made, ready to run and proved to compute the same."""
        path = self._written(choices, stack)
        session = get_backend(self.tuner.backend).prepare(path, threads=self.tuner.threads)
        self._compare(session, path, choices)
        return session

    def _written(self, choices: Choices, stack: ExitStack) -> Path:
        """The model with ``choices`` made, in a file that is there as long as ``stack``."""
        after = apply(self.candidates.with_choices(choices))
        folder = self.candidates.model.folder
        return stack.enter_context(staged(after.proto, folder, None, after.added)).path

    def _compare(self, session: Session, path: Path, choices: Choices) -> None:
        """Raise CheckFailed unless the variant computes what the original does."""
        outputs = compare_outputs(self.expected, session.run(self.feeds))
        if not all(output.passed for output in outputs):
            # A model that moves by its own rounding is judged by how far: see `check_parity`.
            feed, threads = self.tuner.feed, self.tuner.threads
            backend, allowed = self.tuner.backend, self.candidates.planning.options.allow_requantize
            outputs = check_parity(self.source, path, backend, feed, threads, allowed).outputs
        for output in outputs:
            if not output.passed:
                made = ", ".join(f"{name} ({choice})" for name, choice in choices.items())
                raise CheckFailed(
                    f"parity failed with {made or 'nothing changed'}: output '{output.name}':"
                    f" {_difference(output)}: nothing was written"
                )

    def remembered(self, site: str) -> tuple[Candidate, ...]:
        """What was measured of a site before; empty if nothing was."""
        return self.cache.read(self._key(site)) or ()

    def remember(self, site: str, timed: tuple[Candidate, ...]) -> None:
        """Keep what was measured of a site for the next time."""
        self.cache.write(self._key(site), timed)

    def _key(self, site: str) -> Key:
        # Timed in place, a figure belongs to the model as well as to the layer.
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
