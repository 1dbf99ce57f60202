"""Compare the outputs of two models, array by array, and say whether the difference is allowed."""

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
"""Largest |difference| allowed, relative to the largest |value| of the output, by dtype.

A rewritten layer adds the same products in another order. On real models a change of onnxruntime's
optimisation level alone moves float32 outputs by up to 6e-5 of their magnitude, about 500 units of
rounding (eps = 1.2e-7) accumulated over the layers: 1e-4 is just above that. float64
(eps = 2.2e-16) gets the same multiple, rounded up to a power of ten. float16 and bfloat16
(eps = 9.8e-4 and 7.8e-3) are added in float32 and rounded once per layer, so that only about five
units of their own eps accumulate. A wrong tap moves an output by far more. Integers, booleans and
strings must be equal.
"""

_TINY = float(np.finfo(np.float32).tiny)
"""Taken as the magnitude of an output that is all zeros: only a denormal difference passes."""

REQUANTIZED = 0.1
"""How far requantized weights may move an output, relative to its magnitude."""

_STEP_MARGIN = 1 + 1e-6
"""Two multiples of a step differ by the step only up to their own rounding."""

_NOISE_MARGIN = 2.0
_NOISE_LIMIT = 0.1
"""The most that rounding noise may add to a tolerance, relative to the output's magnitude: beyond
this a comparison would show nothing."""

_BLOCK = 1 << 16
"""Elements compared at a time: three float64 blocks fit the second-level cache."""


def compare_outputs(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    noise: Mapping[str, float] | None = None,
    steps: Mapping[str, float] | None = None,
    types: Mapping[str, str] | None = None,
) -> tuple[OutputParity, ...]:
    """Compare ``candidate`` with ``reference``, output by output in the reference's order.

    Shape, dtype and the positions of NaN, +Inf and -Inf must be the same. Then the largest
    difference between finite values, computed in float64, must be within `RTOL` of the largest
    finite magnitude. 0.0 and -0.0 are equal. Outputs without elements are equal if their
    shapes are. An output of only one of the models has failed.

    Args:
        reference: output name -> array.
        candidate: output name -> array.
        noise: by output, how far the reference's own output moves by rounding alone (absolute).
            Twice that is tolerated too, up to a tenth of the output's magnitude.
        steps: by quantized output, its quantization step (absolute). One step is tolerated too,
            also between integers, which otherwise must be equal.
        types: by output, a less precise type that it was computed in, whose `RTOL` applies.

    Returns:
        One verdict per output. ``max_abs`` is the largest difference, ``max_rel`` the same
        divided by the largest finite magnitude; both are NaN if nothing could be measured, e.g.
        if shapes differ.
    """
    noise, steps, types = noise or {}, steps or {}, types or {}
    verdicts = [
        _compare(
            name,
            array,
            candidate[name],
            noise.get(name, 0.0),
            steps.get(name, 0.0),
            RTOL[types[name]] if name in types else 0.0,
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
    name: str, reference: Array, candidate: Array, noise: float, step: float, rtol: float
) -> OutputParity:
    if reference.shape != candidate.shape:
        return _unmeasured(name, f"shape {candidate.shape} instead of {reference.shape}")
    if reference.dtype != candidate.dtype:
        return _unmeasured(name, f"dtype {candidate.dtype} instead of {reference.dtype}")
    if reference.dtype.name not in RTOL:
        verdict = _compare_exactly(name, reference, candidate)
        return _compare_steps(verdict, reference, noise, step) if step else verdict
    left, right = np.ravel(reference), np.ravel(candidate)
    max_abs, magnitude, problem = _measure(left, right)
    tolerance = max(RTOL[reference.dtype.name], rtol) * max(magnitude, _TINY)
    tolerance = max(tolerance, _allowance(magnitude, noise, step))
    return OutputParity(
        name=name,
        max_abs=max_abs,
        max_rel=max_abs / max(magnitude, _TINY),
        tolerance=tolerance,
        passed=problem is None and max_abs <= tolerance,
        problem=problem,
    )


def _allowance(magnitude: float, noise: float, step: float) -> float:
    """What is tolerated for the quantization step and for the rounding noise; the larger."""
    return max(step * _STEP_MARGIN, min(_NOISE_MARGIN * noise, _NOISE_LIMIT * magnitude))


def _compare_steps(
    exact: OutputParity, reference: Array, noise: float, step: float
) -> OutputParity:
    """The verdict on quantized integers, which may differ by a step, given the strict verdict."""
    if exact.passed or not math.isfinite(exact.max_abs):
        return exact
    magnitude = float(np.max(np.abs(reference.astype(np.float64)), initial=0.0))
    tolerance = _allowance(magnitude, noise, step)
    passed = exact.max_abs <= tolerance
    return replace(
        exact, tolerance=tolerance, passed=passed, problem=None if passed else exact.problem
    )


def _compare_exactly(name: str, reference: Array, candidate: Array) -> OutputParity:
    """The verdict on integers, booleans or strings, which must be equal."""
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
    """Largest difference, largest magnitude, and how NaN and Inf differ, or None.

    Only elements that are finite in both count for difference and magnitude.
    """
    max_abs = magnitude = 0.0
    misplaced = {"NaN": 0, "+Inf": 0, "-Inf": 0}
    for start in range(0, reference.size, _BLOCK):
        left = reference[start : start + _BLOCK].astype(np.float64)
        right = candidate[start : start + _BLOCK].astype(np.float64)
        difference = _difference(left, right)
        # A value that is not finite makes the difference not finite, so this one test is enough.
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
