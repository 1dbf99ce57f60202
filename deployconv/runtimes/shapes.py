"""Concrete shapes of a model's inputs: what the caller gave, and a guess for the rest.

An engine of TensorRT is built for a range of shapes; `shape_ranges` chooses that too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from deployconv.errors import UsageError
from deployconv.graph.tensors import declared_sizes
from deployconv.options import ShapeRanges, Shapes
from deployconv.results import ShapeRange
from deployconv.runtimes.base import ModelSource, TensorSpec

Dim = int | str | None

_BATCH = 1
_EXTENT = 64
"""Divisible by 2^6, so that the levels of a U-Net fit together; 4096 pixels, so quick to run."""
_VOLUME_EXTENT = 32
_NO_TENSOR = np.dtype(object)


def choose_shapes(
    specs: Sequence[TensorSpec], given: Shapes
) -> tuple[dict[str, tuple[int, ...]], str | None]:
    """Choose a concrete shape for every input, and note which ones had to be guessed.

    Raises:
        UsageError: a given shape names no input, is not positive, has the wrong rank, or
            contradicts a declared size.
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
    stated = dict(sizes)
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
            _size(spec, axis, dim, sizes, stated) for axis, dim in enumerate(spec.shape)
        )
        if unnamed:
            guessed.append(shown(spec.name, shapes[spec.name]))
    note = f"shapes chosen by deployconv: {' '.join(guessed)} (set with --shape)"
    return shapes, note if guessed else None


def _size(
    spec: TensorSpec, axis: int, dim: Dim, sizes: dict[str, int], stated: Mapping[str, int]
) -> int:
    """Choose the size of one dimension; that of a named one is recorded in ``sizes``.

    ``stated`` has the sizes that the caller gave.
    """
    if isinstance(dim, int):
        return dim
    if dim is not None and dim in sizes:
        return sizes[dim]
    repeated = "" if dim is None else dim.partition("#")[0]
    if repeated in stated:
        return stated[repeated]
    extent = _EXTENT if len(spec.shape) < 5 else _VOLUME_EXTENT
    size = _BATCH if is_batch(axis, dim) else extent
    if dim:
        sizes[dim] = size
    return size


def is_batch(axis: int, dim: str | None) -> bool:
    """Whether a dynamic axis is taken for the batch: the first one, or one of such a name."""
    return axis == 0 or (dim is not None and "batch" in dim.lower())


def check_shape(what: str, shape: tuple[int, ...], spec: TensorSpec, sizes: dict[str, int]) -> None:
    """Raise UsageError if the declared shape excludes ``shape``; add named sizes to ``sizes``."""
    declared = f"the model declares {shown(spec.name, spec.shape)}"
    if spec.shape and len(shape) != len(spec.shape):
        raise UsageError(f"{what}: rank {len(shape)}, but {declared}, rank {len(spec.shape)}")
    for axis, (size, dim) in enumerate(zip(shape, spec.shape, strict=False)):
        if isinstance(dim, int):
            if size != dim:
                raise UsageError(f"{what}: axis {axis} has size {size}, but {declared}")
        elif dim:
            sizes.setdefault(dim, size)


def shown(name: str, shape: Sequence[Dim]) -> str:
    """Write a shape as ``--shape`` takes it: ``x:1,3,H,W``; ``?`` for a size without a name."""
    return f"{name}:{','.join('?' if dim in (None, '') else str(dim) for dim in shape)}"


def all_shown(shapes: Shapes) -> str:
    """Write the shapes of several inputs: ``x:1,3,64,64 mask:1,1,64,64``."""
    return " ".join(shown(name, shape) for name, shape in shapes.items())


def listed(names: Sequence[str] | Mapping[str, TensorSpec]) -> str:
    """Write the names of inputs as messages show them."""
    return ", ".join(repr(name) for name in names) or "no inputs"


def read_structure(source: ModelSource) -> ModelProto:
    """Read a model without its external data."""
    if isinstance(source, bytes):
        return onnx.load_model_from_string(source)
    return onnx.load(source, load_external_data=False)


def input_specs(model: ModelProto) -> tuple[TensorSpec, ...]:
    """Describe the inputs that a caller has to give, which leaves out those with a default."""
    given = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in given)


def output_specs(model: ModelProto) -> tuple[TensorSpec, ...]:
    """Describe the outputs of the main graph."""
    return tuple(map(_spec, model.graph.output))


def shape_ranges(
    specs: Sequence[TensorSpec], given: ShapeRanges
) -> tuple[tuple[ShapeRange, ...], str | None]:
    """Choose a range for every dynamic input, and note which ones had to be guessed.

    The range of a size that is not given is one size, chosen as for `deployconv.verify`.

    Raises:
        UsageError: a shape does not fit what the model declares, or a range does not ascend.
    """
    corners, notes = [], []
    for corner in range(3):
        shapes, note = choose_shapes(specs, {name: bound[corner] for name, bound in given.items()})
        corners.append(shapes)
        notes.append(note)
    for name in given:
        low, optimal, high = (shapes[name] for shapes in corners)
        if not all(a <= b <= c for a, b, c in zip(low, optimal, high, strict=True)):
            raise UsageError(f"--shape {name}: min..opt..max must ascend along every axis")
    dynamic = [spec.name for spec in specs if not spec.is_static]
    ranges = tuple(ShapeRange(name, *(shapes[name] for shapes in corners)) for name in dynamic)
    return ranges, notes[1]


def profile_of(ranges: Sequence[ShapeRange]) -> Mapping[str, Any] | None:
    """Turn ``ranges`` into `binding.BuildSettings.profile`; None if every input is static."""
    return {bound.name: (bound.min, bound.opt, bound.max) for bound in ranges} or None


def _spec(value: ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        return TensorSpec(value.name, _NO_TENSOR, ())
    tensor = value.type.tensor_type
    dtype = _NO_TENSOR
    if tensor.elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING):
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, dtype, declared_sizes(value))
