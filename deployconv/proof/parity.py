"""Parity: the original and the rewritten model give the same outputs on the same inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.options import DEFAULT_RUNTIME, FeedOptions, Shapes
from deployconv.proof.floor import CandidateRun, ReferenceFloor, Verdict, compare_with_floor
from deployconv.proof.inputs import PreparedFeeds, common_inputs, make_feeds, random_arrays
from deployconv.proof.memory import require_memory
from deployconv.proof.other_sizes import LONGEST_RUN, check_other_sizes, trials_after
from deployconv.proof.own_arithmetic import explain_by_runtime
from deployconv.proof.twins import as_declared, twin_of, widened
from deployconv.results import OutputParity, Parity, SizeParity
from deployconv.runtimes import get_backend, get_runtime
from deployconv.runtimes.base import Array, Backend, ModelSource, Session, TensorSpec
from deployconv.runtimes.shapes import read_structure, shown

_NO_FEED = FeedOptions()


def check_parity(
    reference: ModelSource,
    candidate: ModelSource,
    backend_name: str = DEFAULT_RUNTIME,
    feed: FeedOptions = _NO_FEED,
    threads: int | None = None,
    requantized: bool = False,
    other_sizes: bool = True,
    of_rewrite: bool = False,
) -> Parity:
    """Run both models on the same inputs and compare all outputs, see `compare_outputs`.

    If an output differs by too much, these are tried in turn, and `Parity.note` names each:

    1. An output that is computed in float16 or bfloat16 gets the tolerance of that type
       (`low_precision_types`).
    2. The reference is run twice more: without the runtime's graph optimisation, and on inputs
       one unit of rounding away. Twice what its outputs move by that alone is tolerated, and of
       quantized outputs one quantization step (`quantization_steps`).
    3. Quantized models are compared without the rounding of their activations
       (`without_rounding`).

    Args:
        reference: the original model.
        candidate: the rewritten model. The caller has checked that both can be read.
        backend_name: what runs both. If it may not run the reference or may misread it, as
            TensorRT, the reference is run by onnxruntime on the CPU. Both get the same inputs, and
            the outputs the tolerance of the type that the backend computes in. If they differ by
            too much, `explain_by_runtime` tells what the backend itself makes different. If
            the backend does not run the reference because of its bfloat16 or float64, both
            models are compared as their float32 twins, and `Parity.note` says so.
        feed: where the inputs come from.
        threads: of the CPU; None for the backend's default.
        requantized: True if the candidate has other integer weights than the reference, as its
            user allowed, so that it does not compute the same. If all else fails, its outputs may
            differ by a tenth of their magnitude (`REQUANTIZED`), which finds gross errors only;
            step 3 is left out.
        other_sizes: whether models with dynamic inputs are also compared at other sizes and on an
            empty batch, see `proof.other_sizes`. They are not if ``feed`` has arrays, which may
            depend on each other, or if the backend builds an engine for each size.
        of_rewrite: whether the candidate is a rewrite of the reference. If the backend computes
            both equally wrong, that is then no mistake of the rewrite, and `Parity.note` says so.

    Returns:
        The verdict on every output. A candidate that the backend refuses, though it runs the
        reference, has failed.

    Raises:
        UsageError: the models' interfaces differ, the inputs do not fit, a tensor does not fit into
            memory (`require_memory`), or nothing was compared, as every output is empty or nowhere
            finite.
        ModelError: the reference is invalid.
        BackendUnavailable: the backend is missing or cannot run the reference.
    """
    backend = get_backend(backend_name)
    models = _prepare(backend, reference, candidate, threads)
    notes = list(models.notes)
    try:
        rewritten = backend.prepare(models.candidate, threads=threads)
    except (BackendUnavailable, ModelError) as error:
        _raise_if_neither_runs(models, error)
        return _not_run(backend_name, [spec.name for spec in models.session.outputs], error, notes)
    specs = models.session.inputs if models.narrow else common_inputs(models.session, rewritten)
    feeds = _feeds(specs, models.input_dtypes, feed)
    if feeds.note is not None:
        notes.append(feeds.note)
    expected, seconds = _run_reference(models, feeds.arrays, notes)
    if seconds > LONGEST_RUN and feed.inputs is None:
        notes.append(_slow_note(feeds.arrays, seconds))
    given = _narrowed(feeds.arrays, models.input_dtypes) if models.narrow else feeds.arrays
    try:
        actual = rewritten.run(given)
    except (BackendUnavailable, UsageError) as error:
        _raise_if_neither_runs(models, error, given)
        return _not_run(backend_name, list(expected), error, notes)
    if models.narrow:
        expected = _narrowed(expected, {name: array.dtype for name, array in actual.items()})

    floor = models.floor(feeds.arrays, expected, threads)
    judge = partial(_judge, models, requantized, of_rewrite)
    verdict = judge(floor, actual)
    if verdict.passed:
        _require_comparable(expected)
    dynamic = not all(spec.is_static for spec in specs)
    if dynamic and feed.inputs is not None:
        notes.append("compared at the sizes of the given inputs only")
    others: tuple[SizeParity, ...] = ()
    any_size = other_sizes and get_runtime(backend.name).runs_any_size
    if dynamic and any_size and verdict.passed and feed.inputs is None:
        others = _other_sizes(floor, models, rewritten, specs, feed.seed, seconds, judge)
    return Parity(
        backend_name,
        verdict.passed and all(size.status != "failed" for size in others),
        verdict.outputs,
        "; ".join((*notes, *verdict.notes)) or None,
        {name: array.shape for name, array in feeds.arrays.items()},
        others,
    )


@dataclass(frozen=True)
class _Models:
    """The two models as they will be run, and the reference ready to run.

    Attributes:
        original: the reference as it was given.
        reference: the same as it is run, which may be its float32 twin.
        candidate: the candidate as it is run.
        backend: what runs the candidate.
        reference_backend: what runs the reference.
        session: the reference ready to run.
        input_dtypes: by name, the dtypes of inputs before the reference became a float32 twin.
        notes: how the models are compared, if not as they are in one backend.
    """

    original: ModelSource
    reference: ModelSource
    candidate: ModelSource
    backend: Backend
    reference_backend: Backend
    session: Session
    input_dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def differ(self) -> bool:
        """Whether another runtime runs the reference."""
        return self.reference_backend is not self.backend

    @property
    def narrow(self) -> bool:
        """Whether the candidate has shorter types than the reference, which is a float32 twin."""
        return self.differ and bool(self.input_dtypes)

    def floor(
        self, arrays: Mapping[str, Array], expected: Mapping[str, Array], threads: int | None
    ) -> ReferenceFloor:
        """How exact the ``expected`` outputs of the reference are."""
        return ReferenceFloor(
            self.reference, self.session, self.reference_backend, arrays, expected, threads
        )


def _run_reference(
    models: _Models, arrays: Mapping[str, Array], notes: Sequence[str]
) -> tuple[dict[str, Array], float]:
    """The outputs of the reference, and how many seconds it ran.

    ``notes`` are added to the error of a reference that does not run.
    """
    require_memory(models.reference, arrays)
    start = time.monotonic()
    try:
        expected = models.session.run(arrays)
    except BackendUnavailable as error:
        raise BackendUnavailable("; ".join((str(error), *notes))) from error
    return expected, time.monotonic() - start


def _other_sizes(
    floor: ReferenceFloor,
    models: _Models,
    rewritten: Session,
    specs: Sequence[TensorSpec],
    seed: int,
    seconds: float,
    judge: Callable[[ReferenceFloor, Mapping[str, Array]], Verdict],
) -> tuple[SizeParity, ...]:
    """The verdicts at other sizes; ``seconds`` is how long the reference ran at the first."""
    declared = as_declared(specs, models.input_dtypes)

    def make(shapes: Shapes) -> dict[str, Array]:
        arrays = widened(random_arrays(declared, shapes, seed), specs)
        require_memory(models.reference, arrays)
        return arrays

    def compare(
        arrays: Mapping[str, Array], expected: Mapping[str, Array], actual: Mapping[str, Array]
    ) -> Verdict:
        return judge(replace(floor, arrays=arrays, expected=expected), actual)

    def original_runs(arrays: Mapping[str, Array]) -> bool:
        return not models.differ or _runs(models.backend, models.reference, arrays)

    first = {name: array.shape for name, array in floor.arrays.items()}
    trials = trials_after(specs, first, seconds, read_structure(models.reference))
    return check_other_sizes(trials, (models.session, rewritten), make, compare, original_runs)


def _judge(
    models: _Models,
    requantized: bool,
    of_rewrite: bool,
    floor: ReferenceFloor,
    actual: Mapping[str, Array],
) -> Verdict:
    """Compare the outputs of the candidate with those of the reference.

    If another runtime ran the reference, what the candidate's own makes different is told apart,
    unless the two models have other types.
    """
    run = CandidateRun(models.candidate, models.backend, actual, requantized)
    verdict = compare_with_floor(floor, run)
    if verdict.passed or models.narrow or not models.differ:
        return verdict
    return explain_by_runtime(floor, run, of_rewrite) or verdict


def _reference_backend(backend: Backend) -> Backend:
    """What runs the reference: ``backend``, or the default runtime if ``backend`` should not."""
    if get_runtime(backend.name).runs_reference:
        return backend
    try:
        return get_backend(DEFAULT_RUNTIME)
    except BackendUnavailable:
        return backend


def _raise_if_neither_runs(
    models: _Models, error: Exception, arrays: Mapping[str, Array] | None = None
) -> None:
    """Raise ``error`` if what does not run the candidate does not run the reference either.

    The rewrite is not to blame then: there is no GPU, or another part of the model is refused.
    """
    if models.differ and not _runs(models.backend, models.original, arrays):
        raise error from None


def _runs(backend: Backend, model: ModelSource, arrays: Mapping[str, Array] | None) -> bool:
    """Whether ``backend`` loads ``model``, and runs it on ``arrays`` if there are some."""
    try:
        session = backend.prepare(model)
        if arrays is not None:
            session.run(arrays)
    except (BackendUnavailable, ModelError, UsageError):
        return False
    return True


def _narrowed(arrays: Mapping[str, Array], dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """Arrays of a float32 twin, converted to the types of the model itself."""
    return {
        name: array.astype(dtypes[name]) if array.dtype.kind == "f" and name in dtypes else array
        for name, array in arrays.items()
    }


def _prepare(
    backend: Backend, reference: ModelSource, candidate: ModelSource, threads: int | None
) -> _Models:
    """Load the reference, as its float32 twin if what should run it refuses the model itself."""
    chosen = _reference_backend(backend)
    differ = chosen is not backend
    notes = (f"compared with {chosen.runtime} on the CPU",) if differ else ()
    try:
        session = chosen.prepare(reference, threads=threads)
    except (BackendUnavailable, ModelError) as error:
        twin, candidate_twin = twin_of(reference), twin_of(candidate)
        if twin is None or candidate_twin is None:
            raise
        try:
            session = chosen.prepare(twin.model, threads=threads)
        except (BackendUnavailable, ModelError):
            raise error from None  # the element type is not the reason
        return _Models(
            original=reference,
            reference=twin.model,
            # Another backend runs the candidate in its own types.
            candidate=candidate if differ else candidate_twin.model,
            backend=backend,
            reference_backend=chosen,
            session=session,
            input_dtypes=twin.input_dtypes,
            notes=(*notes, f"compared as float32 twins, because: {error}"),
        )
    return _Models(reference, reference, candidate, backend, chosen, session, notes=notes)


def _feeds(
    specs: Sequence[TensorSpec], original_dtypes: Mapping[str, np.dtype[Any]], feed: FeedOptions
) -> PreparedFeeds:
    """Arrays for ``specs``; those of a twin are made in the original's dtype, then widened."""
    feeds = make_feeds(as_declared(specs, original_dtypes), feed)
    return replace(feeds, arrays=widened(feeds.arrays, specs))


def _slow_note(arrays: Mapping[str, Array], seconds: float) -> str:
    """A note on invented inputs that make a run take long, as the length of a loop may do."""
    named = ", ".join(shown(name, array.shape) for name, array in arrays.items())
    return (
        f"one run took {seconds:.0f} s on invented inputs ({named}): --inputs FILE.npz gives others"
    )


def _not_run(
    backend_name: str, names: Sequence[str], error: Exception, notes: Sequence[str]
) -> Parity:
    """The verdict on a candidate that does not run, though the reference does."""
    problem = f"the candidate does not run where the reference does: {error}"
    outputs = tuple(
        OutputParity(name, math.nan, math.nan, 0.0, passed=False, problem=problem) for name in names
    )
    return Parity(backend_name, False, outputs, "; ".join(notes) or None)


def _require_comparable(outputs: Mapping[str, Array]) -> None:
    """Raise UsageError unless an output holds a value that can be compared."""
    if not any(_comparable(array) for array in outputs.values()):
        raise UsageError(
            "nothing was compared: every output is empty or nowhere finite on these inputs: "
            "give --shape or --inputs"
        )


def _comparable(array: Array) -> bool:
    """Whether an output holds at least one value that can be compared."""
    if array.dtype.kind in "OUSbiu":
        return array.size > 0
    return bool(np.any(np.isfinite(array)))
