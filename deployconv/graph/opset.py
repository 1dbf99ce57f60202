"""Raise a model to a later opset if that provably changes nothing.

The version in the import changes, and attributes that are inputs at the later opset become inputs.
The model stays the same if every node in it means the same at the later opset (`reads_alike`). The
schemas of ONNX decide this, and a table of what they do not say. A model whose functions import an
opset of their own is not raised.

A later schema mostly admits more: another type, an optional input, an attribute whose default
is what was done before. A node that uses none of it means the same as before. Integers that were
an attribute (axes, pads, starts) may be an input of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper
from onnx.defs import OpSchema
from onnx.helper import get_attribute_value

from deployconv.graph.splice import Names
from deployconv.graph.tensors import all_graphs, is_onnx, onnx_version, used_names

_BROADCASTING = 7
"""Before this opset an operator that takes two tensors fits them to each other in its own way."""
_RENAMED = {"input_mean": "mean", "input_var": "var"}
"""Inputs of BatchNormalization that a later schema renames."""


def _in_equal_parts(split: NodeProto) -> bool:
    named = any(entry.name == "split" for entry in split.attribute)
    return not named and (len(split.input) < 2 or not split.input[1])


def _in_a_mode_that_went(resize: NodeProto) -> bool:
    return any(
        get_attribute_value(entry) == b"tf_half_pixel_for_nn"
        for entry in resize.attribute
        if entry.name == "coordinate_transformation_mode"
    )


_OTHER_MEANING: Mapping[str, tuple[int, Callable[[NodeProto], bool]]] = {
    # Before: over all axes from `axis` on. Since then: over this axis alone.
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), (13, lambda node: True)),
    "Resize": (13, _in_a_mode_that_went),
    # Since then moved by half a pixel, unless an attribute says otherwise.
    "RoiAlign": (16, lambda node: True),
    # Since then an attribute must say into how many parts.
    "Split": (18, _in_equal_parts),
}
"""For each operator the opset that changes its meaning, and which of its nodes that affects."""


def reads_alike(node: NodeProto, current: int, before: OpSchema, after: OpSchema) -> bool:
    """Whether ``node`` computes the same by the schema ``after`` as by ``before``.

    Args:
        node: valid by ``before``.
        current: the opset of its model.
        before: the schema of its operator there.
        after: that at a later opset, no later than 18.
    """
    if after.deprecated:
        return False
    if before.since_version == after.since_version:
        return True
    since, differs = _OTHER_MEANING.get(node.op_type, (0, lambda _: False))
    crossed = before.since_version < since <= after.since_version
    if current < _BROADCASTING or (crossed and differs(node)):
        return False
    new_inputs = moved(node, after)
    return (
        _fit(node.input, before.inputs, after.inputs, new_inputs.values())
        and _fit(node.output, before.outputs, after.outputs)
        and _attributes_fit(node, before, after, new_inputs.keys())
    )


def moved(node: NodeProto, after: OpSchema) -> dict[str, int]:
    """The attributes of ``node`` that are inputs by the schema ``after``, with their positions."""
    positions = {
        formal.name: position
        for position, formal in enumerate(after.inputs)
        if position >= len(node.input) and "tensor(int64)" in formal.types
    }
    return {
        entry.name: positions[entry.name]
        for entry in node.attribute
        if entry.type == AttributeProto.INTS
        and entry.name in positions
        and entry.name not in after.attributes
    }


Formal = OpSchema.FormalParameter


def _fit(
    names: Sequence[str],
    before: Sequence[Formal],
    after: Sequence[Formal],
    added: Collection[int] = (),
) -> bool:
    """Whether each tensor is still allowed in its position, and no required one is missing.

    Tensors at positions ``added`` will be there.
    """
    for position, name in enumerate(names):
        old, new = _at(before, position), _at(after, position)
        if name and (old is None or new is None or not _admits(old, new)):
            return False
    given = {*added, *(position for position, name in enumerate(names) if name)}
    required = OpSchema.FormalParameterOption.Single
    return all(
        formal.option != required for position, formal in enumerate(after) if position not in given
    )


def _at(formals: Sequence[Formal], position: int) -> Formal | None:
    if position < len(formals):
        return formals[position]
    variadic = OpSchema.FormalParameterOption.Variadic
    return formals[-1] if formals and formals[-1].option == variadic else None


def _admits(old: Formal, new: Formal) -> bool:
    return old.name in (new.name, _RENAMED.get(new.name)) and old.types <= new.types


def _attributes_fit(
    node: NodeProto, before: OpSchema, after: OpSchema, gone: Collection[str]
) -> bool:
    """Whether the attributes that stay are known, and the defaults of all others are the same."""
    old, new = before.attributes, after.attributes
    given = {entry.name for entry in node.attribute} - set(gone)
    for name in given:
        if name not in old or name not in new or old[name].type != new[name].type:
            return False
    for name in new.keys() - given:
        if new[name].required or (name in old and _default(old[name]) != _default(new[name])):
            return False
    return True


def _default(attribute: OpSchema.Attribute) -> bytes:
    serialized: bytes = attribute.default_value.SerializeToString()
    return serialized


def why_not_lifted(model: ModelProto, opset: int) -> str | None:
    """Why ``model`` cannot be raised to ``opset``; None if it can."""
    current = onnx_version(model.opset_import)
    if current is None:
        return "it imports no ONNX operators"
    if current >= opset:
        return None
    if any(onnx_version(function.opset_import) is not None for function in model.functions):
        return "its functions import an opset of their own"
    for node in (node for graph in _graphs(model) for node in graph.node):
        if not is_onnx(node.domain):
            continue
        try:
            before = onnx.defs.get_schema(node.op_type, current)
            after = onnx.defs.get_schema(node.op_type, opset)
        except onnx.defs.SchemaError:
            return f"{node.op_type} is not known at both opsets"
        if not reads_alike(node, current, before, after):
            return f"{node.op_type} changed between opset {current} and {opset}"
    return None


def lift(model: ModelProto, opset: int) -> None:
    """Raise ``model`` to ``opset`` in place; `why_not_lifted` must have returned None for it."""
    current = onnx_version(model.opset_import)
    if current is None or current >= opset:
        return
    fresh = Names(used_names(model)).maker("opset")
    for graph in _graphs(model):
        for position in reversed(range(len(graph.node))):
            node = graph.node[position]
            if is_onnx(node.domain):
                after = onnx.defs.get_schema(node.op_type, opset)
                for constant in _with_inputs(node, moved(node, after), fresh):
                    graph.node.insert(position, constant)
    for entry in model.opset_import:
        if is_onnx(entry.domain):
            entry.version = opset


def _with_inputs(
    node: NodeProto, positions: Mapping[str, int], fresh: Callable[[str], str]
) -> Iterator[NodeProto]:
    """Turn attributes of ``node`` into inputs; yields the Constant nodes that make these."""
    for name, position in positions.items():
        (entry,) = (entry for entry in node.attribute if entry.name == name)
        made = fresh(name)
        yield helper.make_node("Constant", [], [made], name=made, value_ints=list(entry.ints))
        node.attribute.remove(entry)
        node.input.extend([""] * (position + 1 - len(node.input)))
        node.input[position] = made


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    """Every graph that the opset import of the model holds for: all but functions."""
    return (owner for owner in all_graphs(model) if isinstance(owner, GraphProto))
