"""Whether a node says the same at a later opset, by the schemas of ONNX and what they leave out.

A later schema mostly admits more: another type, an optional input, an attribute whose default
is what was done before. A node that uses none of it is read as it was. Integers that were an
attribute may be an input of the same name: axes, pads, starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from onnx import AttributeProto, NodeProto
from onnx.defs import OpSchema
from onnx.helper import get_attribute_value

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
    places = {
        formal.name: place
        for place, formal in enumerate(after.inputs)
        if place >= len(node.input) and "tensor(int64)" in formal.types
    }
    return {
        entry.name: places[entry.name]
        for entry in node.attribute
        if entry.type == AttributeProto.INTS
        and entry.name in places
        and entry.name not in after.attributes
    }


Formal = OpSchema.FormalParameter


def _fit(
    names: Sequence[str],
    before: Sequence[Formal],
    after: Sequence[Formal],
    added: Collection[int] = (),
) -> bool:
    """Whether every tensor has the place that it had, and none is missing that is not ``added``."""
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
