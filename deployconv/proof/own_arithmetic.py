"""Decide whether outputs differ because of the runtime's arithmetic or because of the rewrite.

A rewritten model is compared with the original in onnxruntime. Another runtime may misread the
original, or compute float32 less exactly, such as a Conv by Winograd's method. Neither is a mistake
of the rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.proof.compare import compare_outputs
from deployconv.proof.floor import CandidateRun, ReferenceFloor, Verdict, compare_with_floor
from deployconv.runtimes import get_runtime
from deployconv.runtimes.base import Array, Backend

_LESS_EXACT = {"float32": "float16"}
"""The type whose tolerance holds for an output that optimisations compute less exactly."""


def explain_by_runtime(
    floor: ReferenceFloor, run: CandidateRun, of_rewrite: bool = False
) -> Verdict | None:
    """Explain outputs that differ from a reference that another runtime has computed.

    Two things are tried. Each is an explanation only if the candidate then agrees within the usual
    tolerance:

    1. If the runtime has optimisations that compute less exactly, the candidate is run without
       them. With them it still has to be within the tolerance of float16.
    2. For a rewrite of the reference, its runtime runs the reference too, and the candidate is
       compared with that.

    Args:
        floor: the reference, and its outputs in another runtime.
        run: the candidate, and its outputs in the runtime in question.
        of_rewrite: whether the candidate is a rewrite of the reference, so that what the runtime
            computes wrong in both is no mistake of it.

    Returns:
        A verdict that passes; None if neither explains the differences.
    """
    inexact = get_runtime(run.backend.name).optimises_inexactly
    plain = _without_optimisations(run, floor) if inexact else run
    if plain is None:
        return None
    if inexact and compare_with_floor(floor, plain).passed:
        verdict = _compare_less_exactly(floor.expected, run, plain)
        if verdict.passed:
            return verdict
    own = _run_by(run.backend, floor, optimise=not inexact) if of_rewrite else None
    if own is None or not compare_with_floor(own, plain).passed:
        return None
    if inexact:
        optimised = _run_by(run.backend, floor, optimise=True)
        if optimised is None:
            return None
        verdict = _compare_less_exactly(optimised.expected, run, plain)
    else:
        verdict = compare_with_floor(own, run)
    notes = _misread_note(floor, own), *verdict.notes
    return replace(verdict, notes=notes) if verdict.passed else None


def _compare_less_exactly(
    expected: Mapping[str, Array], run: CandidateRun, plain: CandidateRun
) -> Verdict:
    """Compare with the tolerance of float16; ``plain`` is the run without optimisations."""
    types = {
        name: _LESS_EXACT[array.dtype.name]
        for name, array in expected.items()
        if array.dtype.name in _LESS_EXACT
    }
    note = (
        f"held against the tolerance of float16, as {run.backend.runtime} computes float32 faster"
        " and less exactly; without that, within the usual tolerance"
        f" ({_differences(plain.outputs, run.outputs)})"
    )
    return Verdict(compare_outputs(expected, run.outputs, types=types), (note,))


def _without_optimisations(run: CandidateRun, floor: ReferenceFloor) -> CandidateRun | None:
    """The same run, computed as exactly as the runtime can; None if it cannot."""
    try:
        session = run.backend.prepare(run.model, threads=floor.threads, optimise=False)
        return replace(run, outputs=session.run(floor.arrays))
    except (BackendUnavailable, ModelError, UsageError):
        return None


def _run_by(backend: Backend, floor: ReferenceFloor, optimise: bool) -> ReferenceFloor | None:
    """The same reference run by ``backend``; None if it cannot, or its outputs are empty or NaN."""
    try:
        session = backend.prepare(floor.source, threads=floor.threads, optimise=optimise)
        outputs = session.run(floor.arrays)
    except (BackendUnavailable, ModelError, UsageError):
        return None
    if not all(
        array.size and (array.dtype.kind != "f" or np.isfinite(array).any())
        for array in outputs.values()
    ):
        return None
    return replace(floor, session=session, backend=backend, expected=outputs)


def _misread_note(floor: ReferenceFloor, own: ReferenceFloor) -> str:
    differences = _differences(floor.expected, own.expected)
    return (
        f"{own.backend.runtime} computes the original itself differently ({differences}): held"
        " against the original on it"
    )


def _differences(before: Mapping[str, Array], after: Mapping[str, Array]) -> str:
    return ", ".join(
        output.problem or f"{output.name} by {output.max_abs:.2g}"
        for output in compare_outputs(before, after)
    )
