"""How far the outputs of one model are from those of another. Pure: arrays in, verdict out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deployconv.results import OutputParity
from deployconv.runtimes.base import Array

RTOL: Mapping[str, float] = {
    "float64": 1e-12,
    "float32": 1e-4,
    "float16": 5e-3,
    "bfloat16": 4e-2,
}
"""Largest |difference| allowed, relative to the largest |value| of the output.

A rewritten layer adds the same products in another order. On real models the mere change of
onnxruntime's optimisation level moves float32 outputs by up to 6e-5 of their magnitude, some
500 units of rounding (eps = 1.2e-7) gathered through the layers: 1e-4 lies just above. float64
(eps = 2.2e-16) gets the same multiple, rounded up to a power of ten. float16 and bfloat16
(eps = 9.8e-4 and 7.8e-3) add in float32 and round each layer's output once, so few units of
their own eps gather: five. A wrong tap moves an output by whole units. Everything else,
integers, booleans and strings, is exact.
"""

_TINY = float(np.finfo(np.float32).tiny)
"""The magnitude of an output that is zero throughout: only a denormal difference passes."""

_FLOOR_MARGIN = 2.0
REQUANTIZED = 0.1
"""Part of an output's magnitude that requantized weights may move it by."""

_STEP_MARGIN = 1 + 1e-6
_FLOOR_CEILING = 0.1
"""A floor never widens a tolerance past this part of the output: it would prove nothing."""

_BLOCK = 1 << 16
"""Elements compared at a time: three float64 blocks stay in the second-level cache."""


def compare_outputs(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    floors: Mapping[str, float] | None = None,
    steps: Mapping[str, float] | None = None,
    coarse: Mapping[str, str] | None = None,
) -> tuple[OutputParity, ...]:
    """Compare ``candidate`` with ``reference``, output by output in the reference's order.

    Shape, dtype, and where NaN, +Inf and -Inf stand must be the same; then the largest
    difference of the finite values, taken in float64, must be within `RTOL` of the largest
    finite magnitude. 0.0 and -0.0 are equal. Outputs without elements are equal if their
    shapes are. An output that only the candidate has is a problem of its own.

    Args:
        reference: output name -> array.
        candidate: output name -> array.
        floors: by output, how far the reference moves by itself (absolute). Where given,
            twice that is tolerated too, up to a tenth of the output's magnitude.
        steps: by quantized output, its step (absolute): that much is tolerated too, also of
            integers, which otherwise are equal or not.
        coarse: by output, a coarser type that it was computed in: its `RTOL` holds.

    Returns:
        ``max_abs`` is the largest difference, ``max_rel`` that over the largest finite
        magnitude; both are NaN where shapes differ and nothing could be measured.
    """
    floors, steps, coarse = floors or {}, steps or {}, coarse or {}
    verdicts = [
        _compare(
            name,
            array,
            candidate[name],
            floors.get(name, 0.0),
            steps.get(name, 0.0),
            RTOL[coarse[name]] if name in coarse else 0.0,
        )
        if name in candidate
        else _unmeasured(name, "missing from the candidate's outputs")
        for name, array in reference.items()
    ]
    extra = [name for name in candidate if name not in reference]
    return (
        *verdicts,
        *(_unmeasured(name, "missing from the reference's outputs") for name in extra),
    )


def _unmeasured(name: str, problem: str) -> OutputParity:
    return OutputParity(name, math.nan, math.nan, 0.0, passed=False, problem=problem)


def _compare(
    name: str, reference: Array, candidate: Array, floor: float, step: float, rtol: float
) -> OutputParity:
    if reference.shape != candidate.shape:
        return _unmeasured(name, f"shape {candidate.shape} instead of {reference.shape}")
    if reference.dtype != candidate.dtype:
        return _unmeasured(name, f"dtype {candidate.dtype} instead of {reference.dtype}")
    if reference.dtype.name not in RTOL:
        verdict = _compare_exactly(name, reference, candidate)
        return _compare_steps(verdict, reference, floor, step) if step else verdict
    left, right = np.ravel(reference), np.ravel(candidate)
    max_abs, magnitude, problem = _measure(left, right)
    tolerance = max(RTOL[reference.dtype.name], rtol) * max(magnitude, _TINY)
    tolerance = max(tolerance, _allowance(magnitude, floor, step))
    return OutputParity(
        name=name,
        max_abs=max_abs,
        max_rel=max_abs / max(magnitude, _TINY),
        tolerance=tolerance,
        passed=problem is None and max_abs <= tolerance,
        problem=problem,
    )


def _allowance(magnitude: float, floor: float, step: float) -> float:
    """One step, and twice what the reference moves by itself as far as that proves something."""
    # The difference of two multiples of a step is one, give or take their own rounding.
    return max(step * _STEP_MARGIN, min(_FLOOR_MARGIN * floor, _FLOOR_CEILING * magnitude))


def _compare_steps(
    exact: OutputParity, reference: Array, floor: float, step: float
) -> OutputParity:
    """The verdict on integers of a grid, where a tie may have been rounded to either side."""
    if exact.passed or not math.isfinite(exact.max_abs):
        return exact
    magnitude = float(np.max(np.abs(reference.astype(np.float64)), initial=0.0))
    tolerance = _allowance(magnitude, floor, step)
    passed = exact.max_abs <= tolerance
    return replace(
        exact, tolerance=tolerance, passed=passed, problem=None if passed else exact.problem
    )


def _compare_exactly(name: str, reference: Array, candidate: Array) -> OutputParity:
    """Integers, booleans, strings: equal or not; numbers also by how much."""
    different = reference != candidate
    count = int(np.count_nonzero(different))
    if count == 0:
        return OutputParity(name, 0.0, 0.0, 0.0, passed=True)
    problem = f"{count} of {reference.size} elements differ, and {reference.dtype} must be equal"
    if reference.dtype.kind not in "biu":
        return _unmeasured(name, problem)
    left = reference[different].astype(np.float64)
    max_abs = float(np.max(np.abs(candidate[different].astype(np.float64) - left)))
    magnitude = float(np.max(np.abs(reference.astype(np.float64))))
    return OutputParity(name, max_abs, max_abs / max(magnitude, 1.0), 0.0, False, problem)


def _measure(reference: Array, candidate: Array) -> tuple[float, float, str | None]:
    """Largest difference, largest magnitude, and what differs about NaN and Inf if anything.

    All over the elements that are finite in both.
    """
    max_abs = magnitude = 0.0
    misplaced = {"NaN": 0, "+Inf": 0, "-Inf": 0}
    for start in range(0, reference.size, _BLOCK):
        left = reference[start : start + _BLOCK].astype(np.float64)
        right = candidate[start : start + _BLOCK].astype(np.float64)
        difference = _difference(left, right)
        # Whatever is not finite survives the subtraction, so this one question is enough.
        if not math.isfinite(float(np.max(difference))):
            for name, test in (("NaN", np.isnan), ("+Inf", np.isposinf), ("-Inf", np.isneginf)):
                misplaced[name] += int(np.count_nonzero(test(left) != test(right)))
            finite = np.isfinite(left) & np.isfinite(right)
            left, difference = left[finite], difference[finite]
        max_abs = max(max_abs, float(np.max(difference, initial=0.0)))
        magnitude = max(magnitude, float(np.max(np.abs(left, out=left), initial=0.0)))
    problems = [f"{count} {name}" for name, count in misplaced.items() if count]
    if not problems:
        return max_abs, magnitude, None
    return max_abs, magnitude, f"not at the reference's places: {', '.join(problems)}"


def _difference(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.subtract(right, left)
        return np.abs(difference, out=difference)
