"""What two models are run on: the user's own arrays, or seeded signed random ones."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deployconv.backends.base import Array, TensorSpec
from deployconv.errors import UsageError
from deployconv.options import FeedOptions, Shapes

Dim = int | str | None

_BATCH = 1
_EXTENT = 64
"""Divisible by 2^6, so that a U-Net's levels fit together again; 4096 pixels, so quick."""
_VOLUME_EXTENT = 32
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


def choose_shapes(
    specs: Sequence[TensorSpec], given: Shapes
) -> tuple[dict[str, tuple[int, ...]], str | None]:
    """A concrete shape for every input, and a note that names those that had to be guessed.

    Raises:
        UsageError: a given shape names no input, is not positive, has the wrong rank, or
            contradicts a declared size or a dimension of the same name.
    """
    by_name = {spec.name: spec for spec in specs}
    sizes: dict[str, int] = {}
    for name, shape in given.items():
        if name not in by_name:
            raise UsageError(
                f"--shape {name}: the model has no such input; it has {_listed(by_name)}"
            )
        if any(size < 1 for size in shape):
            raise UsageError(f"--shape {_shown(name, shape)}: every size must be at least 1")
        _check_shape(f"--shape {_shown(name, shape)}", shape, by_name[name], sizes)
    shapes: dict[str, tuple[int, ...]] = {}
    guessed: list[str] = []
    for spec in specs:
        if spec.name in given:
            shapes[spec.name] = given[spec.name]
            continue
        if 0 in spec.shape:
            raise UsageError(
                f"input {_shown(spec.name, spec.shape)} has a size of 0: nothing would be compared"
            )
        unnamed = any(not isinstance(dim, int) and dim not in sizes for dim in spec.shape)
        shapes[spec.name] = tuple(
            _size(spec, axis, dim, sizes) for axis, dim in enumerate(spec.shape)
        )
        if unnamed:
            guessed.append(_shown(spec.name, shapes[spec.name]))
    note = f"shapes chosen by deployconv: {' '.join(guessed)} (set with --shape)"
    return shapes, note if guessed else None


def _size(spec: TensorSpec, axis: int, dim: Dim, sizes: dict[str, int]) -> int:
    """The size of one dimension; a guess for a named one is recorded in ``sizes``."""
    if isinstance(dim, int):
        return dim
    if dim is not None and dim in sizes:
        return sizes[dim]
    if axis == 0 or (dim is not None and "batch" in dim.lower()):
        size = _BATCH
    else:
        size = _EXTENT if len(spec.shape) < 5 else _VOLUME_EXTENT
    if dim:
        sizes[dim] = size
    return size


def _check_shape(
    what: str, shape: tuple[int, ...], spec: TensorSpec, sizes: dict[str, int]
) -> None:
    """Refuse a shape that the declared one excludes; named sizes are added to ``sizes``."""
    declared = f"the model declares {_shown(spec.name, spec.shape)}"
    if spec.shape and len(shape) != len(spec.shape):
        raise UsageError(f"{what}: rank {len(shape)}, but {declared}, rank {len(spec.shape)}")
    for axis, (size, dim) in enumerate(zip(shape, spec.shape, strict=False)):
        if isinstance(dim, int):
            if size != dim:
                raise UsageError(f"{what}: axis {axis} has size {size}, but {declared}")
        elif dim and sizes.setdefault(dim, size) != size:
            raise UsageError(
                f"{what}: axis {axis} has size {size}, but {declared} "
                f"and {dim!r} is {sizes[dim]} elsewhere"
            )


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
            f"input {_shown(spec.name, shape)} cannot be allocated ({error}): "
            "give a smaller --shape"
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
                f"--inputs {path} {problem} {_listed(sorted(names))}; "
                f"the model takes {_listed(declared)}"
            )
    sizes: dict[str, int] = {}
    checked = {}
    for name, spec in declared.items():
        array = _with_declared_type(arrays[name], spec)
        what = f"--inputs {path}: {_shown(name, array.shape)}"
        if array.dtype != spec.dtype and not array.dtype.kind == spec.dtype.kind == "U":
            raise UsageError(f"{what} is {array.dtype}, but the model takes {spec.dtype}")
        if array.size == 0:
            raise UsageError(f"{what} has no element: nothing would be compared")
        _check_shape(what, array.shape, spec, sizes)
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


def _shown(name: str, shape: Sequence[Dim]) -> str:
    """The way ``--shape`` is written: ``x:1,3,H,W``; ``?`` where the model has no name."""
    return f"{name}:{','.join('?' if dim in (None, '') else str(dim) for dim in shape)}"


def _listed(names: Sequence[str] | Mapping[str, TensorSpec]) -> str:
    return ", ".join(repr(name) for name in names) or "no inputs"
