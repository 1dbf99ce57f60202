"""Raise a model to a later opset where that provably changes nothing.

The version in the import changes, and attributes that have become inputs become inputs. That is
the same model if every node in it means the same at the later opset (`reads_alike`), by the
schemas of ONNX and what they leave out; a function with an opset import of its own cannot follow.

A later schema mostly admits more: another type, an optional input, an attribute whose default
is what was done before. A node that uses none of it means what it meant. Integers that were an
attribute may be an input of the same name: axes, pads, starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper
from onnx.defs import OpSchema
from onnx.helper import get_attribute_value

from deployconv.graph.splice import Names
from deployconv.graph.tensors import all_graphs, used_names

_BROADCASTING = 7
"""Before this opset an operator that takes two tensors fits them to each other in its own way."""
_RENAMED = {"input_mean": "mean", "input_var": "var"}
"""Of BatchNormalization, since there are running ones besides."""


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
    # Over all axes from `axis` on, since then over this one.
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), (13, lambda node: True)),
    "Resize": (13, _in_a_mode_that_went),
    # Without an attribute for it, since then moved by half a pixel.
    "RoiAlign": (16, lambda node: True),
    # Since then only if an attribute says into how many.
    "Split": (18, _in_equal_parts),
}
"""From which opset on the same words mean something else, and in which nodes."""


def reads_alike(node: NodeProto, current: int, before: OpSchema, after: OpSchema) -> bool:
    """Whether ``node`` means by ``after`` what it means by ``before``.

    Args:
        node: valid by ``before``.
        current: the opset that it stands in.
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
    """Whether every tensor keeps its position, and only ``added`` ones are missing."""
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
    """Whether all that stay are known, and all that are not set mean what they meant."""
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


_ONNX = ("", "ai.onnx")


def why_not_lifted(model: ModelProto, opset: int) -> str | None:
    """What keeps ``model`` from being raised to ``opset``; None if nothing does."""
    current = _version(model)
    if current is None:
        return "it imports no ONNX operators"
    if current >= opset:
        return None
    if any(entry.domain in _ONNX for f in model.functions for entry in f.opset_import):
        return "its functions import an opset of their own"
    for node in (node for graph in _graphs(model) for node in graph.node):
        if node.domain not in _ONNX:
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
    """Raise ``model`` to ``opset``, for which `why_not_lifted` has no objection."""
    current = _version(model)
    if current is None or current >= opset:
        return
    fresh = Names(used_names(model)).maker("opset")
    for graph in _graphs(model):
        for position in reversed(range(len(graph.node))):
            node = graph.node[position]
            if node.domain in _ONNX:
                after = onnx.defs.get_schema(node.op_type, opset)
                for constant in _with_inputs(node, moved(node, after), fresh):
                    graph.node.insert(position, constant)
    for entry in model.opset_import:
        if entry.domain in _ONNX:
            entry.version = opset


def _with_inputs(
    node: NodeProto, positions: Mapping[str, int], fresh: Callable[[str], str]
) -> Iterator[NodeProto]:
    """Make inputs of attributes of ``node``, and the nodes that make these."""
    for name, position in positions.items():
        (entry,) = (entry for entry in node.attribute if entry.name == name)
        made = fresh(name)
        yield helper.make_node("Constant", [], [made], name=made, value_ints=list(entry.ints))
        node.attribute.remove(entry)
        node.input.extend([""] * (position + 1 - len(node.input)))
        node.input[position] = made


def _version(model: ModelProto) -> int | None:
    versions = (entry.version for entry in model.opset_import if entry.domain in _ONNX)
    return next(versions, None)


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The graph and those that train it, at any depth: one import serves them all."""
    return (owner for owner in all_graphs(model) if isinstance(owner, GraphProto))
