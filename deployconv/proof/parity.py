"""Parity: the whole original and the whole rewritten model on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.quantization import GRIDS
from deployconv.options import FeedOptions
from deployconv.proof.compare import REQUANTIZED, RTOL, compare_outputs
from deployconv.proof.grid import output_steps
from deployconv.proof.inputs import PreparedFeeds, make_feeds
from deployconv.proof.interface import common_inputs
from deployconv.proof.precision import coarse_types
from deployconv.proof.twin import twin_of
from deployconv.proof.unrounded import unrounded
from deployconv.results import OutputParity, Parity
from deployconv.runtimes import DEFAULT_RUNTIME, get_backend, get_runtime
from deployconv.runtimes.base import Array, Backend, ModelSource, Session, TensorSpec

_NO_FEED = FeedOptions()


def check_parity(
    reference: ModelSource,
    candidate: ModelSource,
    backend_name: str = "ort",
    feed: FeedOptions = _NO_FEED,
    threads: int | None = None,
    requantized: bool = False,
) -> Parity:
    """Run both models on the same inputs and compare all outputs, see `compare_outputs`.

    An output that was computed in a coarser type than it is given out in (`coarse_types`) is held
    against the tolerance of that type. Where a difference is too large, the reference is run
    twice more: without the runtime's graph optimisation, and on inputs one unit of rounding away.
    How far it moves by that alone is its own floor, and the outputs are judged once more with it,
    quantized ones also with their step (`output_steps`). Where that does not do and the models
    quantize, they are compared without the rounding of their activations (`unrounded`). Where the
    backend does not run the reference for its bfloat16 or float64, both models are compared as
    their float32 twins. `Parity.note` says either.

    With ``requantized`` the candidate has weights of its own, as its user allowed, and is no
    longer meant to compute the same: where all else fails, its outputs may be a tenth of their
    magnitude away (`REQUANTIZED`), which finds what is wrong altogether and no more.

    On TensorRT the reference is what onnxruntime makes of it on the CPU: TensorRT may not build
    the reference, or may misread it. Both get the same inputs, and the outputs are held against
    the tolerance of the type that TensorRT computes in.

    A candidate that the backend refuses, though it runs the reference, is a failed check.
    That the files can be read is for the caller to see to beforehand.

    Raises:
        UsageError: the models' interfaces differ, the inputs do not fit, or nothing was
            compared, as every output is empty or nowhere finite.
        ModelError: the reference is invalid.
        BackendUnavailable: the backend is missing or cannot run the reference.
    """
    backend = get_backend(backend_name)
    elsewhere = _reference_backend(backend)
    subject = _prepare(elsewhere or backend, reference, candidate, threads)
    notes = list(subject.notes)
    if elsewhere is not None:
        subject = replace(subject, candidate=candidate)  # in its own types, also beside a twin
        notes.insert(0, f"held against {elsewhere.runtime} on the CPU")
    try:
        rewritten = backend.prepare(subject.candidate, threads=threads)
    except (BackendUnavailable, ModelError) as error:
        _raise_where_neither_runs(elsewhere and backend, reference, error)
        return _not_run(backend_name, [spec.name for spec in subject.session.outputs], error, notes)

    typed = elsewhere is not None and bool(subject.input_dtypes)
    specs = subject.session.inputs if typed else common_inputs(subject.session, rewritten)
    feeds = _feeds(specs, subject.input_dtypes, feed)
    if feeds.note is not None:
        notes.append(feeds.note)
    try:
        expected = subject.session.run(feeds.arrays)
    except BackendUnavailable as error:
        raise BackendUnavailable("; ".join((str(error), *notes))) from error
    given = _narrowed(feeds.arrays, subject.input_dtypes) if typed else feeds.arrays
    try:
        actual = rewritten.run(given)
    except (BackendUnavailable, UsageError) as error:
        _raise_where_neither_runs(elsewhere and backend, reference, error, given)
        return _not_run(backend_name, list(expected), error, notes)
    if typed:
        expected = _narrowed(expected, {name: array.dtype for name, array in actual.items()})

    outputs = compare_outputs(expected, actual)
    failed = [output for output in outputs if not output.passed]
    coarse = coarse_types(subject.reference) if failed else {}
    if any(output.name in coarse and output.problem is None for output in failed):
        outputs = compare_outputs(expected, actual, coarse=coarse)
        failed = [output for output in outputs if not output.passed]
        notes.append(_coarse_note(coarse))
    steps = output_steps(subject.reference) if failed else {}
    if any(output.problem is None or output.name in steps for output in failed):
        floors = _floors(elsewhere or backend, subject, feeds, expected, threads, steps)
        outputs = compare_outputs(expected, actual, floors, steps, coarse)
        notes.append(_floor_note(floors))
        if steps:
            notes.append(_step_note(steps))
    if not requantized and any(not output.passed for output in outputs):
        smooth = _without_rounding(backend, subject, feeds, (expected, actual), threads)
        if smooth is not None:
            notes.append(_rounding_note(outputs))
            outputs = smooth
    if requantized and any(not output.passed for output in outputs):
        outputs = compare_outputs(expected, actual, steps=_tenths(expected))
        notes.append(
            "weights were requantized, as the call allowed, so the models are not the same:"
            f" outputs may differ by {REQUANTIZED:.0%} of their magnitude"
        )
    passed = all(output.passed for output in outputs)
    if passed and not any(_comparable(array) for array in expected.values()):
        raise UsageError(
            "nothing was compared: every output is empty or nowhere finite on these inputs: "
            "give --shape or --inputs"
        )
    return Parity(backend_name, passed, outputs, "; ".join(notes) or None)


def _reference_backend(backend: Backend) -> Backend | None:
    """What runs the reference where ``backend`` should not; None where it does, or must."""
    if get_runtime(backend.name).runs_reference:
        return None
    try:
        return get_backend(DEFAULT_RUNTIME)
    except BackendUnavailable:
        return None


def _raise_where_neither_runs(
    backend: Backend | None,
    reference: ModelSource,
    error: Exception,
    arrays: Mapping[str, Array] | None = None,
) -> None:
    """Raise ``error`` where ``backend`` runs the reference no more than the candidate.

    Then it is no matter of the rewrite: there is no GPU, or the rest of the model is refused.
    None stands for a backend that has run the reference.
    """
    if backend is None:
        return
    try:
        session = backend.prepare(reference)
        if arrays is not None:
            session.run(arrays)
    except (BackendUnavailable, ModelError, UsageError):
        raise error from None


def _narrowed(arrays: Mapping[str, Array], dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """Arrays of a float32 twin in the types that the model itself has."""
    return {
        name: array.astype(dtypes[name]) if array.dtype.kind == "f" and name in dtypes else array
        for name, array in arrays.items()
    }


@dataclass(frozen=True)
class _Subject:
    """The two models as they will be run, the reference loaded already."""

    reference: ModelSource
    candidate: ModelSource
    session: Session
    input_dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    """What the inputs were before the models became float32 twins."""
    notes: tuple[str, ...] = ()


def _prepare(
    backend: Backend, reference: ModelSource, candidate: ModelSource, threads: int | None
) -> _Subject:
    """Load the reference, as its float32 twin where the backend refuses the model itself."""
    try:
        return _Subject(reference, candidate, backend.prepare(reference, threads=threads))
    except (BackendUnavailable, ModelError) as error:
        twin, candidate_twin = twin_of(reference), twin_of(candidate)
        if twin is None or candidate_twin is None:
            raise
        try:
            session = backend.prepare(twin.model, threads=threads)
        except (BackendUnavailable, ModelError):
            raise error from None  # the element type is not what is wrong
        note = f"compared as float32 twins, because: {error}"
        return _Subject(twin.model, candidate_twin.model, session, twin.input_dtypes, (note,))


def _feeds(
    specs: Sequence[TensorSpec], original_dtypes: Mapping[str, np.dtype[Any]], feed: FeedOptions
) -> PreparedFeeds:
    """Feeds for ``specs``; a twin's are made in the original's dtype and then widened."""
    declared = [replace(spec, dtype=original_dtypes.get(spec.name, spec.dtype)) for spec in specs]
    feeds = make_feeds(declared, feed)
    widened = {
        spec.name: feeds.arrays[spec.name].astype(spec.dtype)
        if spec.name in original_dtypes
        else feeds.arrays[spec.name]
        for spec in specs
    }
    return replace(feeds, arrays=widened)


def _floors(
    backend: Backend,
    subject: _Subject,
    feeds: PreparedFeeds,
    expected: Mapping[str, Array],
    threads: int | None,
    steps: Mapping[str, float],
) -> dict[str, float]:
    """How far each output moves by itself; empty where that cannot be measured."""
    try:
        plain = backend.prepare(subject.reference, threads=threads, optimise=False)
        nudged = {name: _nudged(array) for name, array in feeds.arrays.items()}
        runs = (plain.run(feeds.arrays), subject.session.run(nudged))
    except (BackendUnavailable, ModelError):
        return {}
    floors: dict[str, float] = {}
    for run in runs:
        for output in compare_outputs(expected, run):
            measured = output.problem is None or output.name in steps
            if measured and math.isfinite(output.max_abs):
                floors[output.name] = max(output.max_abs, floors.get(output.name, 0.0))
    return floors


def _without_rounding(
    backend: Backend,
    subject: _Subject,
    feeds: PreparedFeeds,
    rounded: tuple[Mapping[str, Array], Mapping[str, Array]],
    threads: int | None,
) -> tuple[OutputParity, ...] | None:
    """The verdict on both models with their activations not rounded; None where it is no better.

    As they are, ``rounded``, their outputs may lie no further apart, in the root mean square,
    than rounding moves the reference's.
    """
    before, after = unrounded(subject.reference), unrounded(subject.candidate)
    if before is None or after is None:
        return None
    try:
        smooth, other = (
            backend.prepare(twin, threads=threads).run(feeds.arrays) for twin in (before, after)
        )
    except (BackendUnavailable, ModelError, UsageError):
        return None
    expected, actual = rounded
    outputs = compare_outputs(smooth, other)
    close = all(
        _distance(array, actual.get(name)) <= _distance(array, smooth[name])
        for name, array in expected.items()
    )
    return outputs if close and all(output.passed for output in outputs) else None


def _distance(array: Array, other: Array | None) -> float:
    """Root mean square of the difference; infinite where there is none to be had."""
    if other is None or array.shape != other.shape or array.dtype != other.dtype:
        return math.inf
    if array.dtype.name not in RTOL:
        return 0.0 if np.array_equal(array, other) else math.inf
    difference = array.astype(np.float64) - other.astype(np.float64)
    distance = float(np.sqrt(np.square(difference).mean()))
    return distance if math.isfinite(distance) else math.inf


def _nudged(array: Array) -> Array:
    """Every float one unit of rounding further from zero; everything else as it is."""
    if array.dtype.name not in RTOL:
        return array
    epsilon = ml_dtypes.finfo(array.dtype).eps  # type: ignore[no-untyped-call]
    return np.asarray(array * np.asarray(1 + float(epsilon), array.dtype))


def _floor_note(floors: Mapping[str, float]) -> str:
    if not floors:
        return "the reference's own floor could not be measured"
    moves = ", ".join(f"{name} by {floor:.2g}" for name, floor in floors.items())
    return f"unoptimised or on inputs one rounding away, the reference itself moves: {moves}"


def _tenths(expected: Mapping[str, Array]) -> dict[str, float]:
    """What an output of requantized weights may differ by."""
    return {
        name: REQUANTIZED * float(np.max(np.abs(array.astype(np.float64)), initial=0.0))
        for name, array in expected.items()
        if array.dtype.name in RTOL or array.dtype.name in GRIDS
    }


def _coarse_note(coarse: Mapping[str, str]) -> str:
    listed = ", ".join(f"{name} {kind}" for name, kind in coarse.items())
    return f"held against the tolerance of the type that it is computed in: {listed}"


def _step_note(steps: Mapping[str, float]) -> str:
    listed = ", ".join(f"{name} {step:.2g}" for name, step in steps.items())
    return f"quantized outputs may differ by one step, as sums near a tie go either way: {listed}"


def _rounding_note(outputs: Sequence[OutputParity]) -> str:
    moves = ", ".join(f"{output.name} by {output.max_abs:.2g}" for output in outputs)
    return (
        "compared without the rounding of activations: with it sums near a tie go either way,"
        f" which moves elements of {moves}"
    )


def _not_run(
    backend_name: str, names: Sequence[str], error: Exception, notes: Sequence[str]
) -> Parity:
    """The verdict on a candidate that fails where the reference ran."""
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
