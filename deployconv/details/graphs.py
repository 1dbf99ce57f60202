"""Find the nodes that differ between a model and its rewritten copy, as pictures per site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from deployconv.graph.skeleton import infer_shapes, skeleton
from deployconv.graph.tensors import graph_attributes
from deployconv.results import Change, DrawnGraph, DrawnNode, SiteReport

_LONGEST = 48
"""Characters of an attribute that are shown."""
_MOST_VALUES = 8
"""Elements of a constant that is shown by its values rather than by its shape."""
_SHOWN = {
    "kernel_shape": "kernel",
    "strides": "stride",
    "dilations": "dilation",
    "pads": "pads",
    "output_padding": "output padding",
    "output_shape": "output shape",
    "auto_pad": "auto pad",
    "group": "groups",
    "blocksize": "block",
    "mode": "mode",
    "perm": "order",
    "axis": "axis",
    "coordinate_transformation_mode": "coordinates",
}
"""Attributes that a picture shows, and what it calls them."""
_UNTOLD = {"dilations": 1, "strides": 1, "group": 1, "pads": 0, "output_padding": 0}
"""Values that are the default, so that they are not shown."""

_MADE_UP = "unk__"
"""Begins the names that shape inference invents for sizes that it does not know."""

Owner = GraphProto | FunctionProto
Key = tuple[str, str, tuple[str, ...], tuple[str, ...], bytes]
"""Where a node stands and all that it is."""


def changes_between(
    before: ModelProto, after: ModelProto, sites: Sequence[SiteReport]
) -> tuple[Change, ...]:
    """Return what was removed and added, one entry per site or per sites that share nodes.

    Args:
        before: the original model.
        after: the rewritten one.
        sites: the sites of the original; those that were not changed have no entry.
    """
    old, new = _Graphs.of(before), _Graphs.of(after)
    removed = [key for key in old.nodes if key not in new.nodes]
    added = [key for key in new.nodes if key not in old.nodes]
    groups = _connected(removed, added)
    changed = [site for site in sites if site.changed]
    found: list[Change] = []
    for group in groups:
        gone = [key for key in removed if key in group]
        come = [key for key in added if key in group]
        labels = {(key[0], old.labels[key]) for key in gone}
        ids = tuple(
            site.id for site in changed if any((site.scope, node) in labels for node in site.nodes)
        )
        if ids:
            found.append(Change(ids, old.drawn(gone), new.drawn(come)))
    return tuple(found)


@dataclass(frozen=True)
class _Graphs:
    """All nodes of a model by what they are, with the shapes and constants around them."""

    nodes: Mapping[Key, NodeProto]
    labels: Mapping[Key, str]
    shapes: Mapping[str, str]
    constants: Mapping[str, str]

    @classmethod
    def of(cls, model: ModelProto) -> _Graphs:
        nodes: dict[Key, NodeProto] = {}
        labels: dict[Key, str] = {}
        constants: dict[str, str] = {}
        inferred = infer_shapes(skeleton(model), "model")
        shapes = {
            value.name: _shape(value)
            for _, graph in named_graphs(inferred)
            if isinstance(graph, GraphProto)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        for path, owner in named_graphs(model):
            if isinstance(owner, GraphProto):
                constants |= {one.name: _constant(one) for one in owner.initializer}
            for index, node in enumerate(owner.node):
                if node.op_type == "Constant":
                    constants[node.output[0]] = _constant_node(node)
                    continue
                key = _key(path, node)
                nodes[key] = node
                labels[key] = node.name or f"{node.op_type}_{index}"
        return cls(nodes, labels, shapes, constants)

    def drawn(self, keys: Sequence[Key]) -> DrawnGraph:
        """A picture of these nodes."""
        nodes = tuple(self._drawn_node(key) for key in keys)
        names = {name for node in nodes for name in (*node.inputs, *node.outputs)}
        shapes = {name: self.shapes[name] for name in sorted(names) if name in self.shapes}
        return DrawnGraph(nodes, shapes)

    def _drawn_node(self, key: Key) -> DrawnNode:
        node = self.nodes[key]
        fixed = [self.constants[name] for name in node.input if name in self.constants]
        moving = tuple(name for name in node.input if name and name not in self.constants)
        detail = (*_attributes(node), *fixed)
        return DrawnNode(
            self.labels[key], node.op_type, detail, moving, tuple(filter(None, node.output))
        )


def _key(path: str, node: NodeProto) -> Key:
    attributes = b"".join(
        sorted(one.SerializeToString(deterministic=True) for one in node.attribute)
        if not any(graph_attributes(node))
        else ()
    )
    return path, node.op_type, tuple(node.input), tuple(node.output), attributes


def named_graphs(model: ModelProto) -> Iterator[tuple[str, Owner]]:
    """Every graph and function with its path, the main graph first."""
    yield from _nested("main", model.graph)
    for function in model.functions:
        yield from _nested(f"function:{function.name}", function)


def _nested(path: str, owner: Owner) -> Iterator[tuple[str, Owner]]:
    yield path, owner
    for index, node in enumerate(owner.node):
        for attribute, body in graph_attributes(node):
            label = node.name or f"{node.op_type}_{index}"
            yield from _nested(f"{path}/{label}.{attribute}", body)


def _connected(removed: Iterable[Key], added: Iterable[Key]) -> list[frozenset[Key]]:
    """Group nodes that are joined by tensors which nodes among them make."""
    keys = (*removed, *added)
    made = {(key[0], name) for key in keys for name in key[3] if name}
    by_tensor: dict[tuple[str, str], set[Key]] = {}
    for key in keys:
        for name in {*key[2], *key[3]}:
            if (key[0], name) in made:
                by_tensor.setdefault((key[0], name), set()).add(key)
    group_of = {key: {key} for key in keys}
    for joined in by_tensor.values():
        union = set().union(*(group_of[key] for key in joined))
        for key in union:
            group_of[key] = union
    return list(dict.fromkeys(frozenset(group_of[key]) for key in keys))


def _attributes(node: NodeProto) -> Iterator[str]:
    for one in node.attribute:
        if one.name not in _SHOWN:
            continue
        value = onnx.helper.get_attribute_value(one)
        values = list(value) if one.type == AttributeProto.INTS else [value]
        if one.name in _UNTOLD and all(number == _UNTOLD[one.name] for number in values):
            continue
        text = value.decode(errors="replace") if isinstance(value, bytes) else _numbers(values)
        if text == "NOTSET":
            continue
        yield f"{_SHOWN[one.name]} {text}"[:_LONGEST]


def _numbers(values: Sequence[object]) -> str:
    if len(set(values)) == 1 and len(values) > 1:
        return f"{values[0]} each" if len(values) > 3 else "x".join(map(str, values))
    return ", ".join(map(str, values))


def _constant(tensor: onnx.TensorProto) -> str:
    """A small integer constant by its values, any other one by its shape."""
    size = "x".join(map(str, tensor.dims)) or "scalar"
    few = len(tensor.dims) == 1 and tensor.dims[0] <= _MOST_VALUES
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if few and not external and tensor.data_type == onnx.TensorProto.INT64:
        return f"[{', '.join(map(str, onnx.numpy_helper.to_array(tensor).tolist()))}]"
    return f"constant {size}"


def _constant_node(node: NodeProto) -> str:
    for one in node.attribute:
        if one.type == AttributeProto.TENSOR:
            return _constant(one.t)
    return "constant"


def _shape(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return ""
    sizes = [
        str(dim.dim_value)
        if dim.HasField("dim_value")
        else "?"
        if dim.dim_param.startswith(_MADE_UP)
        else dim.dim_param or "?"
        for dim in kind.shape.dim
    ]
    return "x".join(sizes) or "scalar"
