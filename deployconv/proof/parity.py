"""Parity: the original and the rewritten model give the same outputs on the same inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.quantization import GRIDS
from deployconv.options import DEFAULT_RUNTIME, FeedOptions, Shapes
from deployconv.proof.compare import REQUANTIZED, RTOL, compare_outputs
from deployconv.proof.inputs import PreparedFeeds, common_inputs, make_feeds, random_arrays
from deployconv.proof.other_sizes import LONGEST_RUN, check_other_sizes, trials_after
from deployconv.proof.tolerance import low_precision_types, quantization_steps
from deployconv.proof.twins import as_declared, twin_of, widened, without_rounding
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
        backend_name: what runs both. On TensorRT the reference is run by onnxruntime on the
            CPU, since TensorRT may not build the reference or may misread it. Both get the same
            inputs, and the outputs the tolerance of the type that TensorRT computes in. If
            the backend does not run the reference because of its bfloat16 or float64, both
            models are compared as their float32 twins, and `Parity.note` says so.
        feed: where the inputs come from.
        threads: of the CPU; None for the backend's default.
        requantized: True if the candidate has other integer weights than the reference, as its
            user allowed, so that it does not compute the same. If all else fails, its outputs may
            differ by a tenth of their magnitude (`REQUANTIZED`), which finds gross errors only;
            step 3 is left out.
        other_sizes: whether models with dynamic inputs are also compared at other sizes and on an
            empty batch, see `other_sizes`: unless ``feed`` has arrays, which may depend on each
            other, and where the backend runs any size.

    Returns:
        The verdict on every output. A candidate that the backend refuses, though it runs the
        reference, has failed.

    Raises:
        UsageError: the models' interfaces differ, the inputs do not fit, or nothing was
            compared, as every output is empty or nowhere finite.
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
        notes.insert(0, f"held against {reference_backend.runtime} on the CPU")
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
    outputs, reasons = compare_with_floor(floor, models.candidate, actual, backend, requantized)
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
        others = _other_sizes(
            floor, models, (backend, rewritten), specs, feed.seed, seconds, requantized
        )
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


@dataclass(frozen=True, eq=False)
class ReferenceFloor:
    """How exact the outputs of a reference are; each figure is measured once, when it is needed.

    Attributes:
        source: the reference.
        session: the same, ready to run.
        backend: what runs it.
        arrays: its inputs.
        expected: its outputs.
        threads: of the CPU; None for the backend's default.
    """

    source: ModelSource
    session: Session
    backend: Backend
    arrays: Mapping[str, Array]
    expected: Mapping[str, Array]
    threads: int | None

    @property
    def measured(self) -> bool:
        """Whether the noise has been measured, which takes the longest."""
        return "noise" in vars(self)

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The low-precision types that outputs are computed in."""
        return low_precision_types(self.source)

    @cached_property
    def steps(self) -> Mapping[str, float]:
        """The quantization steps of outputs."""
        return quantization_steps(self.source)

    @cached_property
    def noise(self) -> dict[str, float]:
        """How far each output moves by rounding alone.

        Outputs for which this cannot be measured are left out.
        """
        try:
            plain = self.backend.prepare(self.source, threads=self.threads, optimise=False)
            nudged = {name: _nudged(array) for name, array in self.arrays.items()}
            others = (plain.run(self.arrays), self.session.run(nudged))
        except (BackendUnavailable, ModelError):
            return {}
        noise: dict[str, float] = {}
        for other in others:
            for output in compare_outputs(self.expected, other):
                measured = output.problem is None or output.name in self.steps
                if measured and math.isfinite(output.max_abs):
                    noise[output.name] = max(output.max_abs, noise.get(output.name, 0.0))
        return noise

    @cached_property
    def unrounded(self) -> Mapping[str, Array] | None:
        """The outputs without the rounding of activations; None if there is none, or no run."""
        return self.run_unrounded(self.source, self.backend)

    def run_unrounded(self, source: ModelSource, backend: Backend) -> Mapping[str, Array] | None:
        """Run a model without the rounding of its activations on the inputs of the reference."""
        unrounded = without_rounding(source)
        if unrounded is None:
            return None
        try:
            return backend.prepare(unrounded, threads=self.threads).run(self.arrays)
        except (BackendUnavailable, ModelError, UsageError):
            return None


def compare_with_floor(
    floor: ReferenceFloor,
    candidate: ModelSource,
    actual: Mapping[str, Array],
    backend: Backend,
    requantized: bool = False,
) -> tuple[tuple[OutputParity, ...], list[str]]:
    """The verdict on every output of a candidate, and notes on what had to be tolerated for it.

    See `check_parity`; ``actual`` are the outputs of ``candidate``, which ``backend`` runs.
    """
    expected = floor.expected
    notes = []
    outputs = compare_outputs(expected, actual)
    failed = [output for output in outputs if not output.passed]
    types = floor.types if failed else {}
    if any(output.name in types and output.problem is None for output in failed):
        outputs = compare_outputs(expected, actual, types=types)
        failed = [output for output in outputs if not output.passed]
        notes.append(_types_note(types))
    steps = floor.steps if failed else {}
    if any(output.problem is None or output.name in steps for output in failed):
        outputs = compare_outputs(expected, actual, floor.noise, steps, types)
        notes.append(_noise_note(floor.noise))
        if steps:
            notes.append(_steps_note(steps))
    if not requantized and any(not output.passed for output in outputs):
        unrounded = _compare_without_rounding(floor, candidate, actual, backend)
        if unrounded is not None:
            notes.append(_unrounded_note(outputs))
            outputs = unrounded
    if requantized and any(not output.passed for output in outputs):
        outputs = compare_outputs(expected, actual, steps=_requantized_steps(expected))
        notes.append(
            "weights were requantized, as the call allowed, so the models are not the same:"
            f" outputs may differ by {REQUANTIZED:.0%} of their magnitude"
        )
    return outputs, notes


def _other_sizes(
    floor: ReferenceFloor,
    models: _Models,
    rewritten: tuple[Backend, Session],
    specs: Sequence[TensorSpec],
    seed: int,
    seconds: float,
    requantized: bool,
) -> tuple[SizeParity, ...]:
    """The verdicts at other sizes; ``seconds`` is how long the reference ran at the first."""
    backend, session = rewritten
    declared = as_declared(specs, models.input_dtypes)

    def make(shapes: Shapes) -> dict[str, Array]:
        return widened(random_arrays(declared, shapes, seed), specs)

    def compare(
        arrays: Mapping[str, Array], expected: Mapping[str, Array], actual: Mapping[str, Array]
    ) -> tuple[tuple[OutputParity, ...], list[str]]:
        here = replace(floor, arrays=arrays, expected=expected)
        return compare_with_floor(here, models.candidate, actual, backend, requantized)

    first = {name: array.shape for name, array in floor.arrays.items()}
    trials = trials_after(specs, first, seconds, read_structure(models.reference))
    return check_other_sizes(trials, (models.session, session), make, compare)


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
    try:
        session = backend.prepare(reference)
        if arrays is not None:
            session.run(arrays)
    except (BackendUnavailable, ModelError, UsageError):
        raise error from None


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


def _compare_without_rounding(
    floor: ReferenceFloor, candidate: ModelSource, actual: Mapping[str, Array], backend: Backend
) -> tuple[OutputParity, ...] | None:
    """The verdict on both models with their activations not rounded; None unless all passes.

    Besides, the root mean square difference between the outputs of the two quantized models must
    not be larger than between the reference with and without the rounding.
    """
    smooth = floor.unrounded
    other = None if smooth is None else floor.run_unrounded(candidate, backend)
    if smooth is None or other is None:
        return None
    outputs = compare_outputs(smooth, other)
    close = all(
        _distance(array, actual.get(name)) <= _distance(array, smooth[name])
        for name, array in floor.expected.items()
    )
    return outputs if close and all(output.passed for output in outputs) else None


def _distance(array: Array, other: Array | None) -> float:
    """Root mean square of the difference; infinite if the arrays cannot be compared."""
    if other is None or array.shape != other.shape or array.dtype != other.dtype:
        return math.inf
    if array.dtype.name not in RTOL:
        return 0.0 if np.array_equal(array, other) else math.inf
    difference = array.astype(np.float64) - other.astype(np.float64)
    distance = float(np.sqrt(np.square(difference).mean()))
    return distance if math.isfinite(distance) else math.inf


def _nudged(array: Array) -> Array:
    """``array`` with every float one unit of rounding further from zero; others unchanged."""
    if array.dtype.name not in RTOL:
        return array
    epsilon = ml_dtypes.finfo(array.dtype).eps  # type: ignore[no-untyped-call]
    return np.asarray(array * np.asarray(1 + float(epsilon), array.dtype))


def _noise_note(noise: Mapping[str, float]) -> str:
    if not noise:
        return "the reference's own floor could not be measured"
    moves = ", ".join(f"{name} by {moved:.2g}" for name, moved in noise.items())
    return f"unoptimised or on inputs one rounding away, the reference itself moves: {moves}"


def _requantized_steps(expected: Mapping[str, Array]) -> dict[str, float]:
    """How far each output may move if weights were requantized: a tenth of its magnitude."""
    return {
        name: REQUANTIZED * float(np.max(np.abs(array.astype(np.float64)), initial=0.0))
        for name, array in expected.items()
        if array.dtype.name in RTOL or array.dtype.name in GRIDS
    }


def _slow_note(arrays: Mapping[str, Array], seconds: float) -> str:
    """A note on invented inputs that make a run take long, as the length of a loop may do."""
    named = ", ".join(shown(name, array.shape) for name, array in arrays.items())
    return (
        f"one run took {seconds:.0f} s on invented inputs ({named}): --inputs FILE.npz gives others"
    )


def _types_note(types: Mapping[str, str]) -> str:
    listed = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    return f"held against the tolerance of the type that it is computed in: {listed}"


def _steps_note(steps: Mapping[str, float]) -> str:
    listed = ", ".join(f"{name} {step:.2g}" for name, step in steps.items())
    return f"quantized outputs may differ by one step, as sums near a tie go either way: {listed}"


def _unrounded_note(outputs: Sequence[OutputParity]) -> str:
    moves = ", ".join(f"{output.name} by {output.max_abs:.2g}" for output in outputs)
    return (
        "compared without the rounding of activations: with it sums near a tie go either way,"
        f" which moves elements of {moves}"
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
