"""Compare two models with dynamic inputs at other sizes than the first ones, and at an empty batch.

A rewrite may rely by mistake on the sizes that it was checked at. So there is a second size for
every dynamic axis. Height and width become different ones. Half a size and one and a half of it are
tried first: a network that halves its image several times takes both if it takes the first size,
and the image is no larger. If the original does not run there, every axis is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import ModelProto

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.tensors import all_graphs, is_onnx
from deployconv.options import Shapes
from deployconv.proof.floor import Verdict
from deployconv.results import SizeParity
from deployconv.runtimes.base import Array, Session, TensorSpec
from deployconv.runtimes.shapes import is_batch

LONG_RUN = 1.0
"""Seconds of a run from which on the second sizes are smaller ones."""
LONGEST_RUN = 20.0
"""Seconds of a run from which on no other size is run, except an empty batch."""

_MAY_ABORT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators that end the whole process in some versions of onnxruntime if an axis is empty."""

Arrays = Mapping[str, Array]
Comparison = Callable[[Arrays, Arrays, Arrays], Verdict]
"""From inputs and the outputs of both models to the verdict on them."""


@dataclass(frozen=True)
class Trial:
    """Shapes to try in turn until the original runs; none of them if there is an ``obstacle``."""

    shapes: tuple[Shapes, ...]
    obstacle: str | None = None


def check_other_sizes(
    trials: Sequence[Trial],
    sessions: tuple[Session, Session],
    make_arrays: Callable[[Shapes], Arrays],
    compare: Comparison,
    original_runs: Callable[[Arrays], bool],
) -> tuple[SizeParity, ...]:
    """Compare two models at the first shapes of each trial at which the original runs.

    Args:
        trials: see `trials_after`.
        sessions: the original and the rewritten model.
        make_arrays: the inputs for some shapes.
        compare: see `Comparison`.
        original_runs: whether what runs the rewritten model runs the original on these inputs; it
            may not be what has computed the outputs of the original.

    Returns:
        The verdicts, and entries that say why the original did not run at some shapes.
    """
    found = []
    for trial in trials:
        if trial.obstacle is not None:
            found.append(SizeParity(trial.shapes[0], "not-run", reason=trial.obstacle))
            continue
        for shapes in trial.shapes:
            found.append(_checked(shapes, sessions, make_arrays, compare, original_runs))
            if found[-1].status != "not-run":
                break
    return tuple(found)


def _checked(
    shapes: Shapes,
    sessions: tuple[Session, Session],
    make_arrays: Callable[[Shapes], Arrays],
    compare: Comparison,
    original_runs: Callable[[Arrays], bool],
) -> SizeParity:
    reference, candidate = sessions
    try:
        arrays = make_arrays(shapes)
        expected = reference.run(arrays)
    except (BackendUnavailable, ModelError, UsageError) as error:
        return SizeParity(shapes, "not-run", reason=f"the original does not run there: {error}")
    try:
        actual = candidate.run(arrays)
    except (BackendUnavailable, ModelError, UsageError) as error:
        if not original_runs(arrays):
            return SizeParity(shapes, "not-run", reason=f"neither model runs there: {error}")
        text = f"the candidate does not run where the reference does: {error}"
        return SizeParity(shapes, "failed", reason=text)
    verdict = compare(arrays, expected, actual)
    status: Literal["passed", "failed"] = "passed" if verdict.passed else "failed"
    return SizeParity(shapes, status, verdict.outputs, "; ".join(verdict.notes) or None)


def trials_after(
    specs: Sequence[TensorSpec], first: Shapes, seconds: float, model: ModelProto
) -> tuple[Trial, ...]:
    """The shapes to compare two models at after the first ones: second sizes, an empty batch.

    None for a model without dynamic axes.

    Args:
        specs: the inputs.
        first: the shapes of the first run.
        seconds: how long the first run took.
        model: the structure of the original.
    """
    axes = [is_batch(axis, dim) for spec in specs for axis, dim in _open(spec)]
    if not axes:
        return ()
    has_batch, has_others = any(axes), not all(axes)
    brief = seconds <= LONG_RUN
    shapes = [_resized(specs, first, _other_batch, (_halved, _enlarged) if brief else (_halved,))]
    if has_others and (has_batch or brief):
        shapes.append(_resized(specs, first, _same, (_halved,)))
    long = f"not tried, as one run of the original takes {seconds:.0f} s"
    trials = [Trial(tuple(shapes), long if seconds > LONGEST_RUN else None)]
    if has_batch:
        trials.append(Trial((_resized(specs, first, _empty, (_same,)),), _why_not_empty(model)))
    return tuple(trials)


def _why_not_empty(model: ModelProto) -> str | None:
    """Why ``model`` is not run on an empty batch; None if it may be.

    onnxruntime ends the process at some operators, and what those of other domains do is not known.
    """
    ours = {function.domain for function in model.functions}
    operators = {
        node.op_type
        for owner in all_graphs(model)
        for node in owner.node
        if node.op_type in _MAY_ABORT or not (is_onnx(node.domain) or node.domain in ours)
    }
    if not operators:
        return None
    return f"not tried, as {', '.join(sorted(operators))} may end the process on an empty tensor"


def _open(spec: TensorSpec) -> Iterator[tuple[int, str | None]]:
    """The dynamic axes of an input, with their names."""
    for axis, dim in enumerate(spec.shape):
        if not isinstance(dim, int):
            yield axis, dim


Change = Callable[[int], int]


def _resized(
    specs: Sequence[TensorSpec], first: Shapes, batch: Change, others: Sequence[Change]
) -> Shapes:
    """``first`` with other sizes of the dynamic axes; ``others`` are used in turn in each input.

    Equal sizes of one name stay equal.
    """
    sizes: dict[tuple[str, int], int] = {}
    shapes = {}
    for spec in specs:
        shape, used = list(first[spec.name]), 0
        for axis, dim in _open(spec):
            size = shape[axis]
            if is_batch(axis, dim):
                changed = batch(size)
            else:
                changed = others[used % len(others)](size)
                used += 1
            shape[axis] = sizes.setdefault((dim, size), changed) if dim else changed
        shapes[spec.name] = tuple(shape)
    return shapes


def _same(size: int) -> int:
    return size


def _empty(size: int) -> int:
    return 0


def _other_batch(size: int) -> int:
    return 2 if size == 1 else 1


def _halved(size: int) -> int:
    return size // 2 if size > 1 else 2


def _enlarged(size: int) -> int:
    return size + max(1, size // 2)
