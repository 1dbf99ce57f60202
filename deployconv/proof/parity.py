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
from deployconv.proof.floor import ReferenceFloor, compare_with_floor
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
    reference_backend = _reference_backend(backend)
    differ = reference_backend is not backend
    models = _prepare(reference_backend, reference, candidate, threads)
    notes = list(models.notes)
    if differ:
        # In its own types, even if the reference had to become a float32 twin.
        models = replace(models, candidate=candidate)
        notes.insert(0, f"compared with {reference_backend.runtime} on the CPU")
    try:
        rewritten = backend.prepare(models.candidate, threads=threads)
    except (BackendUnavailable, ModelError) as error:
        if differ:
            _raise_if_neither_runs(backend, reference, error)
        return _not_run(backend_name, [spec.name for spec in models.session.outputs], error, notes)

    narrow = differ and bool(models.input_dtypes)
    specs = models.session.inputs if narrow else common_inputs(models.session, rewritten)
    feeds = _feeds(specs, models.input_dtypes, feed)
    if feeds.note is not None:
        notes.append(feeds.note)
    require_memory(models.reference, feeds.arrays)
    start = time.monotonic()
    try:
        expected = models.session.run(feeds.arrays)
    except BackendUnavailable as error:
        raise BackendUnavailable("; ".join((str(error), *notes))) from error
    seconds = time.monotonic() - start
    if seconds > LONGEST_RUN and feed.inputs is None:
        notes.append(_slow_note(feeds.arrays, seconds))
    given = _narrowed(feeds.arrays, models.input_dtypes) if narrow else feeds.arrays
    try:
        actual = rewritten.run(given)
    except (BackendUnavailable, UsageError) as error:
        if differ:
            _raise_if_neither_runs(backend, reference, error, given)
        return _not_run(backend_name, list(expected), error, notes)
    if narrow:
        expected = _narrowed(expected, {name: array.dtype for name, array in actual.items()})

    floor = ReferenceFloor(
        models.reference, models.session, reference_backend, feeds.arrays, expected, threads
    )
    judge = partial(
        _judge,
        candidate=models.candidate,
        backend=backend,
        requantized=requantized,
        narrow=narrow,
        of_rewrite=of_rewrite,
    )
    outputs, reasons = judge(floor, actual=actual)
    passed = all(output.passed for output in outputs)
    if passed and not any(_comparable(array) for array in expected.values()):
        raise UsageError(
            "nothing was compared: every output is empty or nowhere finite on these inputs: "
            "give --shape or --inputs"
        )
    shapes = {name: array.shape for name, array in feeds.arrays.items()}
    dynamic = not all(spec.is_static for spec in specs)
    if dynamic and feed.inputs is not None:
        notes.append("compared at the sizes of the given inputs only")
    others: tuple[SizeParity, ...] = ()
    if dynamic and other_sizes and passed and feed.inputs is None and _runs_any_size(backend):
        others = _other_sizes(floor, models, (backend, rewritten), specs, feed.seed, seconds, judge)
    return Parity(
        backend_name,
        passed and all(size.status != "failed" for size in others),
        outputs,
        "; ".join((*notes, *reasons)) or None,
        shapes,
        others,
    )


@dataclass(frozen=True)
class _Models:
    """The two models as they will be run, and the reference ready to run."""

    reference: ModelSource
    candidate: ModelSource
    session: Session
    input_dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    """By name, the dtypes of inputs before the models became float32 twins."""
    notes: tuple[str, ...] = ()


def _other_sizes(
    floor: ReferenceFloor,
    models: _Models,
    rewritten: tuple[Backend, Session],
    specs: Sequence[TensorSpec],
    seed: int,
    seconds: float,
    judge: Callable[..., tuple[tuple[OutputParity, ...], list[str]]],
) -> tuple[SizeParity, ...]:
    """The verdicts at other sizes; ``seconds`` is how long the reference ran at the first."""
    backend, session = rewritten
    declared = as_declared(specs, models.input_dtypes)

    def make(shapes: Shapes) -> dict[str, Array]:
        arrays = widened(random_arrays(declared, shapes, seed), specs)
        require_memory(models.reference, arrays)
        return arrays

    def compare(
        arrays: Mapping[str, Array], expected: Mapping[str, Array], actual: Mapping[str, Array]
    ) -> tuple[tuple[OutputParity, ...], list[str]]:
        return judge(replace(floor, arrays=arrays, expected=expected), actual=actual)

    def original_runs(arrays: Mapping[str, Array]) -> bool:
        if backend is floor.backend:
            return True
        return _runs(backend, models.reference, arrays)

    first = {name: array.shape for name, array in floor.arrays.items()}
    trials = trials_after(specs, first, seconds, read_structure(models.reference))
    return check_other_sizes(trials, (models.session, session), make, compare, original_runs)


def _judge(
    floor: ReferenceFloor,
    *,
    candidate: ModelSource,
    actual: Mapping[str, Array],
    backend: Backend,
    requantized: bool,
    narrow: bool,
    of_rewrite: bool,
) -> tuple[tuple[OutputParity, ...], list[str]]:
    """The verdicts on the outputs of a candidate, and notes on what had to be tolerated for it.

    If another runtime ran the reference, what ``backend`` itself makes different is told apart; not
    if the candidate is ``narrow``: of a shorter type than the reference.
    """
    outputs, notes = compare_with_floor(floor, candidate, actual, backend, requantized)
    passed = all(output.passed for output in outputs)
    if passed or narrow or backend is floor.backend:
        return outputs, notes
    own = explain_by_runtime(floor, candidate, actual, backend, requantized, of_rewrite)
    return (outputs, notes) if own is None else (own.outputs, list(own.notes))


def _runs_any_size(backend: Backend) -> bool:
    return get_runtime(backend.name).runs_any_size


def _reference_backend(backend: Backend) -> Backend:
    """What runs the reference: ``backend``, or the default runtime if ``backend`` should not."""
    if get_runtime(backend.name).runs_reference:
        return backend
    try:
        return get_backend(DEFAULT_RUNTIME)
    except BackendUnavailable:
        return backend


def _raise_if_neither_runs(
    backend: Backend,
    reference: ModelSource,
    error: Exception,
    arrays: Mapping[str, Array] | None = None,
) -> None:
    """Raise ``error`` if ``backend`` does not run the reference either.

    The rewrite is not to blame then: there is no GPU, or another part of the model is refused.
    """
    if not _runs(backend, reference, arrays):
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
    """Load the reference, as its float32 twin if the backend refuses the model itself."""
    try:
        return _Models(reference, candidate, backend.prepare(reference, threads=threads))
    except (BackendUnavailable, ModelError) as error:
        twin, candidate_twin = twin_of(reference), twin_of(candidate)
        if twin is None or candidate_twin is None:
            raise
        try:
            session = backend.prepare(twin.model, threads=threads)
        except (BackendUnavailable, ModelError):
            raise error from None  # the element type is not the reason
        note = f"compared as float32 twins, because: {error}"
        return _Models(twin.model, candidate_twin.model, session, twin.input_dtypes, (note,))


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


def _comparable(array: Array) -> bool:
    """Whether an output holds at least one value that can be compared."""
    if array.dtype.kind in "OUSbiu":
        return array.size > 0
    return bool(np.any(np.isfinite(array)))
