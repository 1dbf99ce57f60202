"""The inputs that models are run on: the user's own arrays or random ones, the same for both.

Two models can be compared if they take the same inputs and give the same outputs.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deployconv.errors import UsageError
from deployconv.options import FeedOptions, Inputs, Shapes
from deployconv.runtimes.base import Array, Session, TensorSpec
from deployconv.runtimes.shapes import check_shape, choose_shapes, listed, shown

_LARGEST_INTEGER = 9
"""Of random integers: small enough to be an index into most tables, as integers mostly are."""


@dataclass(frozen=True)
class PreparedFeeds:
    """Arrays by input name; ``note`` names the sizes chosen for lack of ``--shape``."""

    arrays: dict[str, Array]
    note: str | None = None


def make_feeds(specs: Sequence[TensorSpec], options: FeedOptions) -> PreparedFeeds:
    """One array for each input: from the file ``options.inputs``, or random from a seed.

    Floats are standard normal, so of both signs; integers are 0 to 9; booleans are True and
    False equally often. Dynamic sizes come from ``options.shapes``; without one a batch is 1 and
    any other size 64 (32 for three spatial axes). Sizes of one name of two inputs are equal, unless
    the caller gave others. An input of shape ``()`` takes any given shape, as it is a scalar or of
    unknown rank.

    Raises:
        UsageError: shapes or arrays do not fit what the model declares, or the model takes
            a string or a sequence.
    """
    if options.inputs is not None:
        if options.shapes:
            raise UsageError(
                "--shape and --inputs exclude each other: the arrays already have their shapes"
            )
        return PreparedFeeds(_checked(options.inputs, specs))
    for spec in specs:
        if spec.dtype.kind in "OUV" and not _is_float(spec.dtype):
            raise UsageError(
                f"input {spec.name!r} is not numeric: random values would mean nothing, "
                "give --inputs FILE.npz"
            )
    shapes, note = choose_shapes(specs, options.shapes)
    return PreparedFeeds(random_arrays(specs, shapes, options.seed), note)


def random_arrays(specs: Sequence[TensorSpec], shapes: Shapes, seed: int) -> dict[str, Array]:
    """Random arrays of these shapes, see `make_feeds`; a size may be 0.

    Raises UsageError if an array cannot be allocated.
    """
    generator = np.random.default_rng(seed)
    return {spec.name: _random(generator, spec, shapes[spec.name]) for spec in specs}


def input_shapes(specs: Sequence[TensorSpec], options: FeedOptions) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that `make_feeds` returns, without making random ones.

    Raises UsageError if shapes or arrays do not fit what the model declares.
    """
    if options.inputs is not None:
        return {name: array.shape for name, array in make_feeds(specs, options).arrays.items()}
    return choose_shapes(specs, options.shapes)[0]


def common_inputs(reference: Session, candidate: Session) -> tuple[TensorSpec, ...]:
    """The inputs of both models, in the reference's order; a size is static if it is in either.

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


def _random(generator: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    try:
        if spec.dtype.kind == "b":
            return generator.integers(0, 2, shape, dtype=np.uint8).astype(np.bool_)
        if spec.dtype.kind in "iu":
            return generator.integers(0, _LARGEST_INTEGER + 1, shape).astype(spec.dtype)
        if spec.dtype == np.float64:
            return np.asarray(generator.standard_normal(shape))
        return np.asarray(generator.standard_normal(shape, dtype=np.float32)).astype(spec.dtype)
    except (MemoryError, ValueError) as error:
        raise UsageError(
            f"input {shown(spec.name, shape)} cannot be allocated ({error}): give a smaller --shape"
        ) from error


def _checked(inputs: Inputs, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The user's arrays, checked against the inputs; nothing is cast.

    Raises:
        UsageError: a file cannot be read, or the arrays are not what the model takes.
    """
    if isinstance(inputs, Path):
        what, arrays = f"--inputs {inputs}", _load(inputs)
    else:
        what, arrays = "inputs", {name: np.asarray(array) for name, array in inputs.items()}
    declared = {spec.name: spec for spec in specs}
    for problem, names in (
        ("lacks", declared.keys() - arrays.keys()),
        ("has what is no input of the model:", arrays.keys() - declared.keys()),
    ):
        if names:
            raise UsageError(
                f"{what} {problem} {listed(sorted(names))}; the model takes {listed(declared)}"
            )
    sizes: dict[str, int] = {}
    checked = {}
    for name, spec in declared.items():
        array = _with_declared_type(arrays[name], spec)
        where = f"{what}: {shown(name, array.shape)}"
        if array.dtype != spec.dtype and not array.dtype.kind == spec.dtype.kind == "U":
            raise UsageError(f"{where} is {array.dtype}, but the model takes {spec.dtype}")
        if array.size == 0:
            raise UsageError(f"{where} has no element: nothing would be compared")
        check_shape(where, array.shape, spec, sizes)
        checked[name] = array
    return checked


def _load(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file. Raises UsageError if it cannot be read."""
    try:
        # Pickles are refused: a file of arrays must not be able to run code.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(
                f"--inputs {path}: a single array, not an .npz: write it with np.savez"
            )
        with archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except OSError as error:
        raise UsageError(
            f"--inputs {path}: cannot be read ({error.strerror or error}): check the path"
        ) from error
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"--inputs {path}: cannot be read as an .npz of plain arrays "
            f"({' '.join(str(error).split())}): write it with np.savez"
        ) from error


def _with_declared_type(array: Array, spec: TensorSpec) -> Array:
    """``array`` as bfloat16 if that is declared: ``np.savez`` keeps two raw bytes per element."""
    raw = array.dtype.kind == "V" and array.dtype.names is None
    if raw and _is_float(spec.dtype) and array.dtype.itemsize == spec.dtype.itemsize:
        return array.view(spec.dtype)
    return array


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether ``dtype`` holds real numbers; bfloat16 has kind ``V`` like raw bytes."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _require_same_names(
    what: str, reference: Sequence[TensorSpec], candidate: Sequence[TensorSpec]
) -> None:
    ours, theirs = ({spec.name for spec in specs} for specs in (reference, candidate))
    if ours != theirs:
        raise UsageError(
            f"the models do not have the same {what}: only the reference has "
            f"{_quoted(ours - theirs)}, only the candidate {_quoted(theirs - ours)}"
        )


def _common(ours: TensorSpec, theirs: TensorSpec) -> TensorSpec:
    """One input as both models declare it; rank 0 may mean that the rank is unknown."""
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


def _quoted(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
