"""The sizes that an engine is built for: an optimisation profile for the dynamic inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from deployconv.errors import UsageError
from deployconv.options import ShapeRanges
from deployconv.results import ShapeRange
from deployconv.runtimes.base import TensorSpec
from deployconv.runtimes.sizes import choose_shapes

_NO_TENSOR = np.dtype(object)


def input_specs(model: ModelProto) -> tuple[TensorSpec, ...]:
    """The inputs that a caller has to give; those with a default value are not among them."""
    given = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in given)


def output_specs(model: ModelProto) -> tuple[TensorSpec, ...]:
    """The outputs of the main graph."""
    return tuple(map(_spec, model.graph.output))


def shape_ranges(
    specs: Sequence[TensorSpec], given: ShapeRanges
) -> tuple[tuple[ShapeRange, ...], str | None]:
    """A range for every input that is dynamic, and a note that names those that were guessed.

    Sizes that are not given are one size, chosen as for `deployconv.verify`.

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
    dynamic = [spec.name for spec in specs if not all(isinstance(dim, int) for dim in spec.shape)]
    ranges = tuple(ShapeRange(name, *(shapes[name] for shapes in corners)) for name in dynamic)
    return ranges, notes[1]


def profile_of(ranges: Sequence[ShapeRange]) -> Mapping[str, Any] | None:
    """``ranges`` as `binding.BuildSettings` takes them; None where every input is static."""
    return {bound.name: (bound.min, bound.opt, bound.max) for bound in ranges} or None


def _spec(value: ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        return TensorSpec(value.name, _NO_TENSOR, ())
    tensor = value.type.tensor_type
    dtype = _NO_TENSOR
    if tensor.elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING):
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    dims = (
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    )
    return TensorSpec(value.name, dtype, tuple(dims))
