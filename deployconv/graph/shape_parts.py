"""Compute what follows from the known sizes of a shape while its other sizes are open.

Shape -> Gather picks the channels of an image whose batch, height and width are dynamic: the result
is a constant. Only operators that do the same at all sizes, 0 included, are followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from deployconv.graph import symbolic
from deployconv.graph.symbolic import Known, Size, Unproven
from deployconv.graph.tensors import dtype_name

Array = NDArray[Any]

_FOLLOWED = frozenset(
    {
        "Add",
        "Cast",
        "Concat",
        "Gather",
        "Identity",
        "Mul",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Unsqueeze",
    }
)


def inferred_sizes(tensor: gs.Tensor) -> list[Size] | None:
    """The shape of ``tensor``, a symbol for each size that is open; None if its rank is."""
    if tensor.shape is None:
        return None
    return [
        Size.of(size) if _is_size(size) else Size.symbol(f"{id(tensor)}:{axis}")
        for axis, size in enumerate(tensor.shape)
    ]


def has_static_shape(tensor: gs.Tensor) -> bool:
    """Whether every size of ``tensor`` is known before the model runs."""
    return tensor.shape is not None and all(map(_is_size, tensor.shape))


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size >= 0


def picked_sizes(node: gs.Node, sizes: Sequence[Size]) -> Sequence[Known]:
    """The output of ``node``, a Shape of a tensor of ``sizes``; empty if its bounds are open."""
    start, end = node.attrs.get("start", 0), node.attrs.get("end", len(sizes))
    if not isinstance(start, int) or not isinstance(end, int):
        return ()
    picked = sizes[start:end]
    elements = np.empty(len(picked), object)
    elements[:] = picked
    return (Known((Size.of(len(picked)),), elements),)


def followed(node: gs.Node, proto: NodeProto, inputs: Sequence[Known | None]) -> Sequence[Known]:
    """What is known of the outputs of ``node``; empty if nothing is, or it is not followed."""
    if node.op not in _FOLLOWED or node.attrs.get("to") == TensorProto.BOOL:
        return ()
    try:
        return symbolic.run(proto, inputs)
    except Unproven:
        return ()


def values_of(known: Known, node: gs.Node, tensor: gs.Tensor) -> Array | None:
    """The values of ``tensor``, which ``node`` makes; None if one depends on a size that is open.

    None as well if its element type is not known.
    """
    dtype = "int64" if node.op == "Shape" else dtype_name(tensor.dtype)
    if dtype is None or not isinstance(known.elements, np.ndarray):
        return None
    constants = [size.constant if size is not None else None for size in known.elements.ravel()]
    numbers = [number for number in constants if number is not None]
    if len(numbers) < len(constants):
        return None
    whole = known.whole and all(number.denominator == 1 for number in numbers)
    plain = [int(number) if whole else float(number) for number in numbers]
    return (
        np.array(plain, np.int64 if whole else np.float64)
        .astype(dtype)
        .reshape(known.elements.shape)
    )
