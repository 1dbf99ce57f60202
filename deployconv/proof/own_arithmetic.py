"""Decide whether outputs differ because of the runtime's arithmetic or because of the rewrite.

A rewritten model is compared with the original in onnxruntime. Another runtime may misread the
original, or compute float32 less exactly, such as a Conv by Winograd's method. Neither is a mistake
of the rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.proof.compare import compare_outputs
from deployconv.proof.floor import ReferenceFloor, compare_with_floor
from deployconv.results import OutputParity
from deployconv.runtimes import get_runtime
from deployconv.runtimes.base import Array, Backend, ModelSource

_LESS_EXACT = {"float32": "float16"}
"""The type whose tolerance holds for an output that optimisations compute less exactly."""


@dataclass(frozen=True)
class OwnVerdict:
    """The verdict on outputs whose differences the runtime's own arithmetic explains: all pass.

    Attributes:
        outputs: the verdicts.
        notes: what explains the differences.
    """

    outputs: tuple[OutputParity, ...]
    notes: tuple[str, ...]


def explain_by_runtime(
    floor: ReferenceFloor,
    candidate: ModelSource,
    actual: Mapping[str, Array],
    backend: Backend,
    requantized: bool = False,
    of_rewrite: bool = False,
) -> OwnVerdict | None:
    """Explain outputs that differ from a reference that another runtime has computed.

    Two things are tried. Each is an explanation only if the candidate then agrees within the usual
    tolerance:

    1. If the runtime has optimisations that compute less exactly, the candidate is run without
       them. With them it still has to be within the tolerance of float16.
    2. For a rewrite of the reference, ``backend`` runs the reference too, and the candidate is
       compared with that.

    Args:
        floor: the reference, and its outputs in another runtime.
        candidate: the model that ``backend`` runs.
        actual: its outputs.
        backend: the runtime in question.
        requantized: as for `compare_with_floor`.
        of_rewrite: whether the candidate is a rewrite of the reference, so that what the runtime
            computes wrong in both is no mistake of it.

    Returns:
        None if neither explains the differences.
    """
    inexact = get_runtime(backend.name).optimises_inexactly
    plain = _outputs(candidate, backend, floor, optimise=False) if inexact else actual
    if plain is None:
        return None
    if inexact and _agree(floor, candidate, plain, backend, requantized):
        outputs = _compare_less_exactly(floor.expected, actual)
        if all(output.passed for output in outputs):
            return OwnVerdict(outputs, (_optimised_note(backend, plain, actual),))
    own = _run_by(backend, floor, optimise=not inexact) if of_rewrite else None
    if own is None or not _agree(own, candidate, plain, backend, requantized):
        return None
    notes = [_misread_note(floor, own)]
    if inexact:
        with_optimisations = _run_by(backend, floor, optimise=True)
        if with_optimisations is None:
            return None
        outputs = _compare_less_exactly(with_optimisations.expected, actual)
        notes.append(_optimised_note(backend, plain, actual))
    else:
        outputs, reasons = compare_with_floor(own, candidate, actual, backend, requantized)
        notes += reasons
    passed = all(output.passed for output in outputs)
    return OwnVerdict(outputs, tuple(notes)) if passed else None


def _agree(
    floor: ReferenceFloor,
    candidate: ModelSource,
    outputs: Mapping[str, Array],
    backend: Backend,
    requantized: bool,
) -> bool:
    found, _ = compare_with_floor(floor, candidate, outputs, backend, requantized)
    return all(output.passed for output in found)


def _compare_less_exactly(
    expected: Mapping[str, Array], actual: Mapping[str, Array]
) -> tuple[OutputParity, ...]:
    types = {
        name: _LESS_EXACT[array.dtype.name]
        for name, array in expected.items()
        if array.dtype.name in _LESS_EXACT
    }
    return compare_outputs(expected, actual, types=types)


def _outputs(
    model: ModelSource, backend: Backend, floor: ReferenceFloor, optimise: bool
) -> Mapping[str, Array] | None:
    try:
        session = backend.prepare(model, threads=floor.threads, optimise=optimise)
        return session.run(floor.arrays)
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


def _optimised_note(
    backend: Backend, plain: Mapping[str, Array], actual: Mapping[str, Array]
) -> str:
    return (
        f"held against the tolerance of float16, as {backend.runtime} computes float32 faster and"
        f" less exactly; without that, within the usual tolerance ({_differences(plain, actual)})"
    )


def _differences(before: Mapping[str, Array], after: Mapping[str, Array]) -> str:
    return ", ".join(
        output.problem or f"{output.name} by {output.max_abs:.2g}"
        for output in compare_outputs(before, after)
    )
