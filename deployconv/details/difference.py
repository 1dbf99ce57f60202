"""What differs between two models: nodes, weights, and the interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto

from deployconv.details.graphs import named_graphs
from deployconv.graph.load import LoadedModel
from deployconv.graph.tensors import declared_sizes, dtype_name, read_tensor
from deployconv.results import ChangedWeight, ModelDifference, NodeLine


def difference_between(before: LoadedModel, after: LoadedModel) -> ModelDifference:
    """Compare two models: every graph and function in them, at any depth.

    A node is the same if its name, operator, inputs, outputs and attributes are. A weight is known
    by its graph and name.
    """
    old, new = Counter(_nodes(before)), Counter(_nodes(after))
    removed, added, changed = _weights(before, after)
    return ModelDifference(
        before=before.info,
        after=after.info,
        interface=tuple(_interface(before, after)),
        nodes_removed=tuple(key[0] for key in (old - new).elements()),
        nodes_added=tuple(key[0] for key in (new - old).elements()),
        weights_removed=removed,
        weights_added=added,
        weights_changed=changed,
    )


def _nodes(model: LoadedModel) -> Iterator[tuple[NodeLine, bytes]]:
    """Every node as it is shown, and its content."""
    for path, owner in named_graphs(model.proto):
        for node in owner.node:
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            yield NodeLine(path, node.name or ", ".join(node.output), operator), _content(node)


def _content(node: NodeProto) -> bytes:
    """The node as bytes, without documentation and bodies, which are compared by themselves."""
    bare = NodeProto()
    bare.CopyFrom(node)
    bare.doc_string = ""
    for attribute in bare.attribute:
        attribute.ClearField("g")
        attribute.ClearField("graphs")
    ordered = sorted(bare.attribute, key=lambda attribute: attribute.name)
    del bare.attribute[:]
    bare.attribute.extend(ordered)
    return bytes(bare.SerializeToString(deterministic=True))


def _tensors(model: LoadedModel) -> dict[str, TensorProto]:
    return {
        f"{path}/{tensor.name}": tensor
        for path, owner in named_graphs(model.proto)
        for tensor in getattr(owner, "initializer", ())
    }


def _weights(
    before: LoadedModel, after: LoadedModel
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[ChangedWeight, ...]]:
    """The names of the weights that only one model has, and those with other values."""
    old, new = _tensors(before), _tensors(after)
    changed = (
        _changed(name, read_tensor(old[name], before.folder), read_tensor(new[name], after.folder))
        for name in old
        if name in new
    )
    return (
        tuple(name for name in old if name not in new),
        tuple(name for name in new if name not in old),
        tuple(filter(None, changed)),
    )


def _changed(name: str, old: Any, new: Any) -> ChangedWeight | None:
    before, after = (f"{array.dtype} {list(array.shape)}" for array in (old, new))
    if before != after:
        return ChangedWeight(name, before, after, None)
    if old.tobytes() == new.tobytes():
        return None
    if not np.issubdtype(old.dtype, np.number):
        return ChangedWeight(name, before, after, None)
    gap = np.abs(old.astype(np.float64) - new.astype(np.float64))
    return ChangedWeight(name, before, after, float(np.nanmax(gap)))


def _interface(before: LoadedModel, after: LoadedModel) -> Iterator[str]:
    """What differs in the inputs and outputs, and in the versions, as lines."""
    for what in ("opset", "ir_version"):
        old, new = getattr(before.info, what), getattr(after.info, what)
        if old != new:
            yield f"{what.replace('_', ' ')}: {old} -> {new}"
    for kind in ("input", "output"):
        old_values = [_value(one) for one in getattr(before.proto.graph, kind)]
        new_values = [_value(one) for one in getattr(after.proto.graph, kind)]
        yield from (f"{kind} removed: {one}" for one in old_values if one not in new_values)
        yield from (f"{kind} added: {one}" for one in new_values if one not in old_values)
        if old_values != new_values and sorted(old_values) == sorted(new_values):
            yield f"{kind}s are in another order"


def _value(value: ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return f"{value.name} ({value.type.WhichOneof('value') or 'no type'})"
    known = value.type.tensor_type.HasField("shape")
    sizes = ",".join("?" if one is None else str(one) for one in declared_sizes(value))
    dtype = dtype_name(value.type.tensor_type.elem_type)
    return f"{value.name} {dtype} [{sizes if known else '...'}]"
