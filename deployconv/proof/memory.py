"""Refuse a model with a tensor that does not fit into the memory of this machine.

A runtime that is asked for such a tensor may take all memory before it fails, or be ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from onnx import ModelProto

from deployconv.errors import UsageError
from deployconv.graph.shapes import Shapes
from deployconv.graph.skeleton import skeleton
from deployconv.runtimes.base import Array, ModelSource
from deployconv.runtimes.machine import physical_memory
from deployconv.runtimes.shapes import read_structure, shown

_GIB = 1 << 30


def require_memory(source: ModelSource | ModelProto, arrays: Mapping[str, Array]) -> None:
    """Raise UsageError if a tensor of ``source`` does not fit into memory on these inputs.

    Nothing is allocated. Only sizes that follow from those of the inputs are known. Each element
    counts as one byte, so that no model is refused that might run.
    """
    available = physical_memory()
    if available is None:
        return
    model = skeleton(source if isinstance(source, ModelProto) else read_structure(source))
    sizes = Shapes(model).at({name: array.shape for name, array in arrays.items()})
    made = {name for node in model.graph.node for name in node.output} & sizes.keys()
    largest = max(made, key=lambda name: prod(sizes[name]), default=None)
    if largest is not None and prod(sizes[largest]) > available:
        raise UsageError(
            f"tensor {shown(largest, sizes[largest])} needs {prod(sizes[largest]) / _GIB:,.0f} GiB"
            f" or more, this machine has {available / _GIB:,.0f} GiB: it cannot be run here:"
            " give a smaller --shape, or --no-verify --no-bench"
        )
