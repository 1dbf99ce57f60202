"""How exact the outputs of a reference are, and a comparison with it that allows for that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.quantization import GRIDS
from deployconv.proof.compare import REQUANTIZED, RTOL, compare_outputs
from deployconv.proof.tolerance import low_precision_types, quantization_steps
from deployconv.proof.twins import without_rounding
from deployconv.results import OutputParity
from deployconv.runtimes.base import Array, Backend, ModelSource, Session


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


@dataclass(frozen=True, eq=False)
class CandidateRun:
    """A run of a candidate on the inputs of the reference.

    Attributes:
        model: the candidate.
        backend: what ran it.
        outputs: what it computed.
        requantized: whether it has other integer weights than the reference, as its user allowed.
    """

    model: ModelSource
    backend: Backend
    outputs: Mapping[str, Array]
    requantized: bool = False


@dataclass(frozen=True)
class Verdict:
    """The verdict on every output of a candidate, and what had to be tolerated for it."""

    outputs: tuple[OutputParity, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is as exact as it has to be."""
        return all(output.passed for output in self.outputs)


def compare_with_floor(floor: ReferenceFloor, run: CandidateRun) -> Verdict:
    """Compare the outputs of a candidate with those of the reference, see `check_parity`."""
    expected, actual = floor.expected, run.outputs
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
    if not run.requantized and any(not output.passed for output in outputs):
        unrounded = _compare_without_rounding(floor, run)
        if unrounded is not None:
            notes.append(_unrounded_note(outputs))
            outputs = unrounded
    if run.requantized and any(not output.passed for output in outputs):
        outputs = compare_outputs(expected, actual, steps=_requantized_steps(expected))
        notes.append(
            "weights were requantized, as the call allowed, so the models are not the same:"
            f" outputs may differ by {REQUANTIZED:.0%} of their magnitude"
        )
    return Verdict(outputs, tuple(notes))


def _compare_without_rounding(
    floor: ReferenceFloor, run: CandidateRun
) -> tuple[OutputParity, ...] | None:
    """The verdict on both models with their activations not rounded; None unless all passes.

    Besides, the root mean square difference between the outputs of the two quantized models must
    not be larger than between the reference with and without the rounding.
    """
    smooth = floor.unrounded
    other = None if smooth is None else floor.run_unrounded(run.model, run.backend)
    if smooth is None or other is None:
        return None
    outputs = compare_outputs(smooth, other)
    close = all(
        _distance(array, run.outputs.get(name)) <= _distance(array, smooth[name])
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
