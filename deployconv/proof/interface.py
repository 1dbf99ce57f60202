"""Two models can be compared when they take the same inputs and give the same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deployconv.errors import UsageError
from deployconv.runtimes.base import Session, TensorSpec


def common_inputs(reference: Session, candidate: Session) -> tuple[TensorSpec, ...]:
    """The inputs of both, in the reference's order, static wherever either model is.

    Raises:
        UsageError: names, dtypes, ranks or static sizes of inputs, or the names of outputs,
            are not the same, or there is no output.
    """
    _require_same_names("inputs", reference.inputs, candidate.inputs)
    _require_same_names("outputs", reference.outputs, candidate.outputs)
    if not reference.outputs:
        raise UsageError("the models have no output: there is nothing to compare")
    theirs = {spec.name: spec for spec in candidate.inputs}
    return tuple(_common(spec, theirs[spec.name]) for spec in reference.inputs)


def _require_same_names(
    what: str, reference: Sequence[TensorSpec], candidate: Sequence[TensorSpec]
) -> None:
    ours, theirs = ({spec.name for spec in specs} for specs in (reference, candidate))
    if ours != theirs:
        raise UsageError(
            f"the models do not have the same {what}: only the reference has "
            f"{_listed(ours - theirs)}, only the candidate {_listed(theirs - ours)}"
        )


def _common(ours: TensorSpec, theirs: TensorSpec) -> TensorSpec:
    """One input as both models declare it; rank 0 may stand for an unknown rank."""
    ranks_fit = not ours.shape or not theirs.shape or len(ours.shape) == len(theirs.shape)
    sizes_fit = all(
        mine == other
        for mine, other in zip(ours.shape, theirs.shape, strict=False)
        if isinstance(mine, int) and isinstance(other, int)
    )
    if ours.dtype != theirs.dtype or not ranks_fit or not sizes_fit:
        raise UsageError(
            f"the models do not take the same input {ours.name!r}: "
            f"{_described(ours)} in the reference, {_described(theirs)} in the candidate"
        )
    if not ours.shape or not theirs.shape:
        return replace(ours, shape=ours.shape or theirs.shape)
    merged = tuple(
        other if isinstance(other, int) else mine
        for mine, other in zip(ours.shape, theirs.shape, strict=True)
    )
    return replace(ours, shape=merged)


def _described(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{','.join('?' if dim is None else str(dim) for dim in spec.shape)}]"


def _listed(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
