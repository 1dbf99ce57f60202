"""Turn what a caller may give into what the options are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployconv.errors import UsageError
from deployconv.options import (
    FeedOptions,
    Inputs,
    RewriteCommand,
    RunCommand,
    ShapeRanges,
    Shapes,
    path_of,
)

if TYPE_CHECKING:
    import onnx

    from deployconv.runtimes.base import ModelSource

    Model = str | Path | bytes | onnx.ModelProto


ShapeMap = Mapping[str, Sequence[int]]
"""Input name -> concrete shape."""


ArrayMap = Mapping[str, Any]
"""Input name -> array."""


RangeMap = Mapping[str, Sequence[int] | Sequence[Sequence[int]]]
"""Input name -> one shape, or the smallest, the optimal and the largest one."""


def source_of(model: Model) -> ModelSource:
    """Return what a backend loads for ``model``: a path, or the serialized model."""
    serialize = getattr(model, "SerializeToString", None)
    if serialize is not None:
        return bytes(serialize())
    return model if isinstance(model, bytes) else path_of(model)


def feed_of(options: RewriteCommand | RunCommand) -> FeedOptions:
    """Return where the inputs of a call come from."""
    return FeedOptions(options.shape or {}, options.inputs, options.seed)


def as_path(given: str | Path | None) -> Path | None:
    """Return a path, if one is given. Raises UsageError if it is empty or none."""
    return None if given is None else path_of(given)


def as_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


def as_shapes(shape: ShapeMap | None) -> Shapes:
    """Return shapes by input name. Raises UsageError if they are something else."""
    given: Any = {} if shape is None else shape
    wrong = not isinstance(given, Mapping) or any(
        isinstance(sizes, str) or not isinstance(sizes, Iterable) for sizes in given.values()
    )
    if wrong:
        raise UsageError(f"shape is {given!r}: give sizes by input name: {{'x': (1, 3, 64, 64)}}")
    return {name: tuple(sizes) for name, sizes in given.items()}


def as_inputs(given: str | Path | ArrayMap | None) -> Inputs | None:
    """Return arrays by input name as they are, or the path of a file of them."""
    return given if isinstance(given, Mapping) else as_path(given)


def as_ranges(shape: RangeMap | None) -> ShapeRanges:
    """Turn each value into three shapes; a single shape is used for all three."""
    ranges = {}
    for name, given in (shape or {}).items():
        corners = [tuple(corner) for corner in given if not isinstance(corner, int)]
        sizes = tuple(size for size in given if isinstance(size, int))
        if corners and (sizes or len(corners) != 3):
            raise UsageError(f"shape {name}: give one shape, or smallest, optimal and largest")
        low, optimal, high = corners or (sizes, sizes, sizes)
        ranges[name] = (low, optimal, high)
    return ranges
