"""Build variants of one model, verify them and time them against each other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import isinf
from pathlib import Path

from deployconv.errors import BackendUnavailable, CheckFailed
from deployconv.graph.save import staged
from deployconv.proof.certificate import certify, folder_name
from deployconv.proof.compare import compare_outputs
from deployconv.proof.floor import CandidateRun, ReferenceFloor, compare_with_floor
from deployconv.proof.inputs import make_feeds
from deployconv.proof.memory import require_memory
from deployconv.proof.parity import check_parity
from deployconv.results import Candidate, OutputParity, Parity
from deployconv.rewrites.planning import apply
from deployconv.runtimes import get_backend, get_runtime
from deployconv.runtimes.base import Array, GpuSession, ModelSource, Session
from deployconv.runtimes.blocks import GROUP, Interval, time_in_blocks
from deployconv.runtimes.machine import describe_machine
from deployconv.runtimes.peak_memory import peak_memory
from deployconv.search.cache import Key, TimingCache
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice, Choices, Finalist, TunerOptions
from deployconv.search.measure import FIRST_RUNS, MARGIN, Timing, time_against_first

_BEYOND = 1.5
"""How many times the budget may be spent if a step takes longer than expected."""
_CONFIRMATION = 0.4
"""The part of the budget that is kept for the comparison of whole models, at the most."""
_BRIEF_CONFIRMATION = 2.0
"""Seconds for that comparison, at the least, if the budget has them."""
_PROCESS_SECONDS = 1.0
"""How long a process takes to start that measures memory, roughly."""
_MEMORY_RUNS = 3
"""The runs in such a process."""
_SHORT_RUN = 0.04
"""A run that takes less than this part of the budget is timed twice more."""
_MOST_CONFIRMATION = 4.0
"""Seconds for the runs of the first eight blocks, at the most."""
_FLOOR_RUNS = 6
"""The runs that it takes to measure how exact the outputs of the original are, roughly."""


class FormFailed(CheckFailed):
    """A form computes something else than the original, so the search ended.

    Attributes:
        choices: what was changed.
        site: the id of the site whose certificate failed; None if parity failed.
        failure: the first element that differs.
        parity: the comparison that failed, if one did.
    """

    def __init__(
        self,
        message: str,
        choices: Choices,
        site: str | None = None,
        failure: str | None = None,
        parity: Parity | None = None,
    ) -> None:
        super().__init__(f"{message}: nothing was written")
        self.choices, self.site, self.failure, self.parity = choices, site, failure, parity


@dataclass
class _Clock:
    """When the time to measure is over, and how long it takes to make a variant.

    Attributes:
        deadline: after it nothing begins, on the clock `time.monotonic`.
        end: when everything has to be over, but for one run of the model.
        build_seconds: for one variant: certified, written, loaded and run once.
    """

    deadline: float
    end: float
    build_seconds: float


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
        clock: how much time there is.
        cache: stores timings for later calls.
    """

    candidates: Candidates
    source: ModelSource
    original: Session
    tuner: TunerOptions
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]
    run_seconds: float
    clock: _Clock
    cache: TimingCache
    _certified: set[tuple[str, Choice]] = field(default_factory=set)
    _compared: set[str] = field(default_factory=set)
    _peaks: dict[frozenset[tuple[str, Choice]], int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, candidates: Candidates, original: ModelSource, tuner: TunerOptions) -> Workbench:
        """Start the time to measure, load the original and run it.

        Raises:
            UsageError: the inputs do not fit the model.
            BackendUnavailable: the backend cannot run the model.
        """
        start = time.monotonic()
        session = get_backend(tuner.backend).prepare(original, threads=tuner.threads)
        feeds = make_feeds(session.inputs, tuner.feed).arrays
        require_memory(original, feeds)
        cache = TimingCache.of_user() if tuner.cache else TimingCache(None)
        loaded = time.monotonic()
        expected = session.run(feeds)
        run = time.monotonic() - loaded
        if run < _SHORT_RUN * tuner.budget:
            # A session still takes memory in its second run.
            run = min(run, *(_seconds(session, feeds) for _ in range(2)))
        clock = _Clock(
            deadline=start + tuner.budget,
            end=start + _BEYOND * tuner.budget,
            build_seconds=loaded - start + run,
        )
        return cls(candidates, original, session, tuner, feeds, expected, run, clock, cache)

    @property
    def seconds_left(self) -> float:
        """Seconds until the time to measure is over."""
        return self.clock.deadline - time.monotonic()

    @property
    def race_seconds(self) -> float:
        """Seconds for comparisons of forms: those that are left, less what comes after them."""
        return self.seconds_left - self._confirmation_seconds - self._memory_seconds

    @property
    def _confirmation_seconds(self) -> float:
        """Seconds that are kept for a comparison of three whole models in eight blocks."""
        wanted = 2 * self.clock.build_seconds + 3 * (GROUP + 1) * self.run_seconds
        return min(max(wanted, _BRIEF_CONFIRMATION), _CONFIRMATION * self.tuner.budget)

    @property
    def _memory_seconds(self) -> float:
        """Seconds to measure the memory of the original and of one variant; 0 if it is not."""
        if not self.measures_memory:
            return 0.0
        each = _PROCESS_SECONDS + self.clock.build_seconds + _MEMORY_RUNS * self.run_seconds
        return min(2 * each, _CONFIRMATION / 2 * self.tuner.budget)

    @property
    def measures_memory(self) -> bool:
        """Whether there is a limit of memory that can be measured; that of a device cannot."""
        return get_runtime(self.tuner.backend).measures_memory and not isinf(self.tuner.max_memory)

    def fits(self, seconds: float, variants: int = 1) -> bool:
        """Whether there is time to make some variants and then to measure for so long."""
        return variants * self.clock.build_seconds + seconds <= self.seconds_left

    def joined(self, choices: Choices) -> set[str]:
        """The sites that the rewrites of others replace."""
        sites = self.candidates.with_choices(choices).sites
        return {planned.id for planned in sites if planned.joined is not None}

    def compare(self, variants: Sequence[Choices], seconds: float) -> list[Timing | None]:
        """Time the model with each of these choices against the first, the likely fastest first.

        Returns as many timings as there was time to make variants for; none if not even for two.
        The timing of a variant that the backend cannot run is None.

        Raises FormFailed for a variant that computes something else than the original.
        """
        end = time.monotonic() + seconds
        with ExitStack() as stack:
            sessions: list[Session | None] = []
            for choices in variants:
                runs = FIRST_RUNS * (len(sessions) + 1) * self.run_seconds
                if time.monotonic() + self.clock.build_seconds + runs > end:
                    break
                made = self._variant_if_it_runs(choices, stack)
                sessions.append(None if made is None else made[1])
            ready = [session for session in sessions if session is not None]
            if len(ready) < 2 or sessions[0] is None:
                return []
            timings = iter(time_against_first(ready, self.feeds, end - time.monotonic()))
            return [None if session is None else next(timings) for session in sessions]

    def fastest(self, finalists: Sequence[Finalist]) -> Choices | None:
        """Which of ``finalists`` is faster than the original; empty if none is, None without time.

        The first one has to be measured to be faster, one that is not likely to be beyond doubt.
        A later one takes its place only if it was measured to be faster still, and is at most
        slightly slower.

        Raises FormFailed for a variant that computes something else than the original.
        """
        with ExitStack() as stack:
            made: list[tuple[Finalist, Path, Session]] = []
            refused = False
            for one in finalists:
                if self.fits(2 * (len(made) + 2) * self.run_seconds):
                    variant = self._variant_if_it_runs(one.choices, stack)
                    refused = refused or variant is None
                    if variant is not None:
                        made.append((one, *variant))
            if not made:
                return {} if refused else None
            backend, threads = get_backend(self.tuner.backend), self.tuner.threads
            paths = [self.source, *(path for _, path, _ in made)]
            blocks = time_in_blocks(
                [self.original, *(session for _, _, session in made)],
                [partial(backend.prepare, path, threads=threads) for path in paths]
                if not isinstance(self.original, GpuSession)
                else None,
                self.feeds,
                seconds=min(_MOST_CONFIRMATION, self.seconds_left / 2),
                limit=max(0.0, self.seconds_left - self._memory_seconds),
                load_seconds=len(paths) * self.clock.build_seconds,
                fewest=1,
            )
        self._compared.update(name for one, _, _ in made for name in one.choices)
        best: int | None = None
        for position, (one, _, _) in enumerate(made, 1):
            found = Interval.of(blocks.ratios(position, first=best or 0))
            if best is not None:
                better = found.ratio > 1.0 and found.low > 1.0 - MARGIN
            elif one.likely:
                better = found.ratio > 1.0 and not found.slower
            else:
                better = blocks.interval(position).low > 1.0 + MARGIN
            if better:
                best = position
        return {} if best is None else made[best - 1][0].choices

    @property
    def compared(self) -> frozenset[str]:
        """The sites of which a form took part in a comparison with the original."""
        return frozenset(self._compared)

    def memory_ratio(self, choices: Choices) -> float | None:
        """Peak memory with ``choices``, divided by that without any; None if not measurable."""
        before, after = self._peak({}), self._peak(choices)
        return after / before if before and after else None

    def _peak(self, choices: Choices) -> int | None:
        """The peak memory with ``choices`` in bytes; each set of choices is measured once.

        None if it cannot be measured, or not in the time that is left.
        """
        key = frozenset(choices.items())
        if key not in self._peaks and self.clock.end > time.monotonic():
            with ExitStack() as stack:
                path = self._written(choices, stack)
                self._peaks[key] = peak_memory(
                    path,
                    self.feeds,
                    self.original.threads,
                    self.tuner.backend,
                    self.clock.end - time.monotonic(),
                )
        return self._peaks.get(key)

    def certify(self, choices: Choices) -> None:
        """Raise FormFailed unless every form in ``choices`` has its certificate."""
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
                message = f"{name}: certificate failed for {choice} ({found.failure})"
                raise FormFailed(message, choices, name, found.failure)
            self._certified.add((name, choice))

    def _variant_if_it_runs(
        self, choices: Choices, stack: ExitStack
    ) -> tuple[Path, Session] | None:
        """Like `_variant`; None for one that the backend does not run, or misreads.

        A backend that does not run the reference may misread a form as it may misread the original.
        That the form is right, its certificate says, which another backend computes.

        Raises FormFailed for a variant that computes something else than the original.
        """
        try:
            return self._variant(choices, stack)
        except BackendUnavailable:
            return None
        except FormFailed as failure:
            if failure.site is not None or get_runtime(self.tuner.backend).runs_reference:
                raise
            return None

    def _variant(self, choices: Choices, stack: ExitStack) -> tuple[Path, Session]:
        """A file and a session of the model with ``choices``, certified and compared."""
        start = time.monotonic()
        path = self._written(choices, stack)
        session = get_backend(self.tuner.backend).prepare(path, threads=self.tuner.threads)
        self._check_outputs(session, path, choices)
        taken = time.monotonic() - start
        self.clock.build_seconds = max(self.clock.build_seconds, taken)
        return path, session

    def _written(self, choices: Choices, stack: ExitStack) -> Path:
        """A file with the model with ``choices``, certified; deleted when ``stack`` closes."""
        self.certify(choices)
        after = apply(self.candidates.with_choices(choices))
        folder = self.candidates.model.folder
        return stack.enter_context(staged(after.proto, folder, None, after.added)).path

    def _check_outputs(self, session: Session, path: Path, choices: Choices) -> None:
        """Raise FormFailed unless the outputs are those of the original.

        A difference may be the model's own rounding. If there is no time to measure that, the
        parity of the model that is written decides.
        """
        actual = session.run(self.feeds)
        outputs = compare_outputs(self.expected, actual)
        if all(output.passed for output in outputs):
            return
        if not self.floor.measured and not self.fits(_FLOOR_RUNS * self.run_seconds):
            return
        backend = get_backend(self.tuner.backend)
        requantize = self.candidates.planning.options.allow_requantize
        if get_runtime(backend.name).runs_reference:
            run = CandidateRun(path, backend, actual, requantize)
            verdict = compare_with_floor(self.floor, run)
            note = "; ".join(verdict.notes) or None
            parity = Parity(backend.name, verdict.passed, verdict.outputs, note)
        else:
            parity = check_parity(
                *(self.source, path, backend.name, self.tuner.feed, self.tuner.threads, requantize),
                other_sizes=False,
                of_rewrite=True,
            )
        for output in parity.outputs:
            if not output.passed:
                made = ", ".join(f"{name} ({choice})" for name, choice in choices.items())
                message = f"parity failed with {made or 'nothing changed'}: output '{output.name}'"
                raise FormFailed(f"{message}: {_difference(output)}", choices, parity=parity)

    @cached_property
    def floor(self) -> ReferenceFloor:
        """How exact the outputs of the original are; measured when it is needed, and once."""
        backend, threads = get_backend(self.tuner.backend), self.tuner.threads
        return ReferenceFloor(
            self.source, self.original, backend, self.feeds, self.expected, threads
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
