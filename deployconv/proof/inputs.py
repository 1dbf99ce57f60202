"""What two models are run on: the user's own arrays, or seeded signed random ones."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from deployconv.runtimes.base import Array, TensorSpec
from deployconv.runtimes.shapes import check_shape, choose_shapes, listed, shown

_LARGEST_INTEGER = 9
"""Small enough to be an index into most tables; integers are seldom anything else."""


@dataclass(frozen=True)
class PreparedFeeds:
    """Arrays by input name. ``note`` says which shapes were chosen for want of ``--shape``."""

    arrays: dict[str, Array]
    note: str | None = None


def make_feeds(specs: Sequence[TensorSpec], options: FeedOptions) -> PreparedFeeds:
    """One array for each of ``specs``: from ``options.inputs``, or random and seeded.

    Floats are standard normal, so of both signs; integers are 0 to 9; booleans are fair.
    Dynamic sizes come from ``options.shapes``, else a batch is 1 and the rest 64 (32 in a
    volume). Equal dimension names get equal sizes. Shape ``()`` takes any given shape, as
    it stands for a scalar and for an unknown rank.

    Raises:
        UsageError: shapes or arrays do not fit what the model declares, or the model wants
            a string or a sequence.
    """
    if options.inputs is not None:
        if options.shapes:
            raise UsageError(
                f"--shape and --inputs {options.inputs} exclude each other: "
                "the arrays in the file already have their shapes"
            )
        return PreparedFeeds(_load(options.inputs, specs))
    for spec in specs:
        if spec.dtype.kind in "OUV" and not _is_float(spec.dtype):
            raise UsageError(
                f"input {spec.name!r} is not numeric: random values would mean nothing, "
                "give --inputs FILE.npz"
            )
    shapes, note = choose_shapes(specs, options.shapes)
    generator = np.random.default_rng(options.seed)
    return PreparedFeeds(
        {spec.name: _random(generator, spec, shapes[spec.name]) for spec in specs}, note
    )


def input_shapes(specs: Sequence[TensorSpec], options: FeedOptions) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that `make_feeds` makes, which are read but not made here.

    Raises UsageError where shapes or arrays do not fit what the model declares.
    """
    if options.inputs is not None:
        return {name: array.shape for name, array in make_feeds(specs, options).arrays.items()}
    return choose_shapes(specs, options.shapes)[0]


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


def _load(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The arrays of an ``.npz`` file, checked against the inputs; nothing is cast.

    Raises:
        UsageError: the file cannot be read, or its arrays are not what the model takes.
    """
    try:
        # Pickles are refused: a file of arrays must not be able to run code.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(
                f"--inputs {path}: a single array, not an .npz: write it with np.savez"
            )
        with archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"--inputs {path}: cannot be read as an .npz of plain arrays "
            f"({' '.join(str(error).split())}): write it with np.savez"
        ) from error
    declared = {spec.name: spec for spec in specs}
    for problem, names in (
        ("lacks", declared.keys() - arrays.keys()),
        ("has what is no input of the model:", arrays.keys() - declared.keys()),
    ):
        if names:
            raise UsageError(
                f"--inputs {path} {problem} {listed(sorted(names))}; "
                f"the model takes {listed(declared)}"
            )
    sizes: dict[str, int] = {}
    checked = {}
    for name, spec in declared.items():
        array = _with_declared_type(arrays[name], spec)
        what = f"--inputs {path}: {shown(name, array.shape)}"
        if array.dtype != spec.dtype and not array.dtype.kind == spec.dtype.kind == "U":
            raise UsageError(f"{what} is {array.dtype}, but the model takes {spec.dtype}")
        if array.size == 0:
            raise UsageError(f"{what} has no element: nothing would be compared")
        check_shape(what, array.shape, spec, sizes)
        checked[name] = array
    return checked


def _with_declared_type(array: Array, spec: TensorSpec) -> Array:
    """bfloat16 comes back from ``np.savez`` as two raw bytes an element: name them again."""
    raw = array.dtype.kind == "V" and array.dtype.names is None
    if raw and _is_float(spec.dtype) and array.dtype.itemsize == spec.dtype.itemsize:
        return array.view(spec.dtype)
    return array


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether ``dtype`` holds real numbers; bfloat16 has kind ``V`` like raw bytes."""
    return dtype.kind == "f" or dtype.name == "bfloat16"
