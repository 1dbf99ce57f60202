"""Concrete sizes for a model's inputs: what the caller gave, and a guess where nothing was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployconv.errors import UsageError
from deployconv.options import Shapes
from deployconv.runtimes.base import TensorSpec

Dim = int | str | None

_BATCH = 1
_EXTENT = 64
"""Divisible by 2^6, so that a U-Net's levels fit together again; 4096 pixels, so quick."""
_VOLUME_EXTENT = 32


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
                f"--shape {name}: the model has no such input; it has {listed(by_name)}"
            )
        if any(size < 1 for size in shape):
            raise UsageError(f"--shape {shown(name, shape)}: every size must be at least 1")
        check_shape(f"--shape {shown(name, shape)}", shape, by_name[name], sizes)
    shapes: dict[str, tuple[int, ...]] = {}
    guessed: list[str] = []
    for spec in specs:
        if spec.name in given:
            shapes[spec.name] = given[spec.name]
            continue
        if 0 in spec.shape:
            raise UsageError(
                f"input {shown(spec.name, spec.shape)} has a size of 0: nothing would be compared"
            )
        unnamed = any(not isinstance(dim, int) and dim not in sizes for dim in spec.shape)
        shapes[spec.name] = tuple(
            _size(spec, axis, dim, sizes) for axis, dim in enumerate(spec.shape)
        )
        if unnamed:
            guessed.append(shown(spec.name, shapes[spec.name]))
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


def check_shape(what: str, shape: tuple[int, ...], spec: TensorSpec, sizes: dict[str, int]) -> None:
    """Refuse a shape that the declared one excludes; named sizes are added to ``sizes``."""
    declared = f"the model declares {shown(spec.name, spec.shape)}"
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


def shown(name: str, shape: Sequence[Dim]) -> str:
    """The way ``--shape`` is written: ``x:1,3,H,W``; ``?`` where the model has no name."""
    return f"{name}:{','.join('?' if dim in (None, '') else str(dim) for dim in shape)}"


def listed(names: Sequence[str] | Mapping[str, TensorSpec]) -> str:
    """Names of inputs, as messages show them."""
    return ", ".join(repr(name) for name in names) or "no inputs"
