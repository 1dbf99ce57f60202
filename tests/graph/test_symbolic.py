"""What is known of a tensor at all sizes holds at each size by the ONNX reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto

from deployconv.graph import symbolic
from deployconv.graph.evaluate import evaluate
from deployconv.graph.symbolic import Known, Size, Spread, Unproven
from tests.build import Array, node

SIZES = [{"h": h, "w": w} for h, w in [(1, 1), (1, 7), (2, 1), (3, 4), (5, 2), (12, 9), (40, 33)]]
CONSTANTS: dict[str, Array] = {
    f"k{number}": np.array([number], np.int64) for number in (-2, -1, 0, 1, 2, 3, 5, 8)
} | {
    "half": np.array([0.5], np.float32),
    "pair": np.array([2, -3], np.int64),
    "grid": np.arange(6).reshape(2, 3),
    "last": np.array([2**63 - 1], np.int64),
}
BINARY = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Less", "Greater", "Equal")
OTHERS = (
    *("And", "Cast", "Concat", "ConstantOfShape", "Expand", "Floor", "Gather", "Not", "Pad"),
    *("Range", "Reshape", "Shape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    *("Range", "Slice"),
)


def operand(name: str, at: Mapping[str, int]) -> Array:
    """A constant, or the open size of that name."""
    return CONSTANTS[name] if name in CONSTANTS else np.array([at[name]], np.int64)


def known(name: str) -> Known:
    if name in CONSTANTS:
        return Known.of(CONSTANTS[name])
    elements = np.empty(1, object)
    elements[0] = Size.symbol(name)
    return Known((Size.of(1),), elements)


@st.composite
def programs(draw: st.DrawFn) -> list[NodeProto]:
    """Up to a dozen nodes that read earlier ones, constants and the sizes."""
    names = ["h", "w", *(name for name in CONSTANTS if name != "last")]
    made: list[NodeProto] = []
    for number in range(draw(st.integers(1, 12))):

        def pick() -> str:
            return draw(st.sampled_from(names[-6:]) | st.sampled_from(names))

        attributes: dict[str, Any] = {}
        op = draw(st.sampled_from([*BINARY, *OTHERS]))
        inputs = [pick()]
        if op in BINARY or op in ("And", "Expand", "Reshape", "Tile", "Gather", "Pad"):
            inputs = [pick(), pick()]
        elif op == "Range":
            begin = draw(st.sampled_from(["k0", "k1"]))
            inputs = [begin, pick(), draw(st.sampled_from(["k1", "k2"]))]
        elif op == "Where":
            inputs = [pick(), pick(), pick()]
        elif op == "Slice":
            step = draw(st.sampled_from(["k1", "k2", "k-1"]))
            inputs = [pick(), pick(), draw(st.sampled_from(["last", pick()])), "k0", step]
        elif op == "Unsqueeze":
            inputs.append(draw(st.sampled_from(["k0", "k1", "k-1"])))
        elif op == "Concat":
            inputs, attributes = [pick(), pick()], {"axis": 0}
        elif op == "Cast":
            kinds = (TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL)
            attributes = {"to": draw(st.sampled_from(kinds))}
        output = f"t{number}"
        made.append(node(op, inputs, [output], **attributes))
        names.append(output)
    return made


def assert_holds(claim: Known, actual: Array, at: Mapping[str, int]) -> None:
    assert tuple(size.at(at) for size in claim.shape) == actual.shape
    if isinstance(claim.elements, np.ndarray):
        assert claim.elements.shape == actual.shape
        for element, value in zip(claim.elements.ravel(), actual.ravel(), strict=True):
            assert element is None or element.at(at) == Fraction(value.item())
    elif claim.elements is not None:
        assert_rule(claim.elements, actual, at)


def assert_rule(rule: Spread, actual: Array, at: Mapping[str, int]) -> None:
    if rule.fill is not None:
        assert set(actual.ravel().tolist()) <= {float(rule.fill.at(at))}
    if rule.nonnegative:
        assert (actual >= 0).all()
    if rule.cyclic and actual.ndim == 1:
        np.testing.assert_array_equal(actual[rule.period :], actual[: -rule.period or None])


@settings(max_examples=300)
@given(programs())
def test_it_holds_at_every_size(nodes: list[NodeProto]) -> None:
    values = [dict(CONSTANTS) | {name: operand(name, at) for name in ("h", "w")} for at in SIZES]
    claims = {name: known(name) for name in values[0]}
    for proto in nodes:
        if not all(name in values[0] for name in proto.input):
            continue
        output = proto.output[0]
        try:
            for own in values:
                fed = {name: scalar(proto, own, name) for name in proto.input}
                assert has_types(proto, list(fed.values()))
                (own[output],) = evaluate([proto], 18, fed, [output])
                assert own[output].size < 100_000
        except Exception:  # nodes that cannot run at some size, as most random nodes
            for own in values:
                own.pop(output, None)
            continue
        if not all(name in claims for name in proto.input):
            continue
        try:
            (claims[output],) = symbolic.run(proto, [claims[name] for name in proto.input])
        except Unproven:
            event(f"{proto.op_type}: nothing is claimed")
            continue
        event(f"{proto.op_type}: claimed")
        for own, at in zip(values, SIZES, strict=True):
            assert_holds(claims[output], own[output], at)


def has_types(proto: NodeProto, inputs: list[Array]) -> bool:
    """Whether runtimes accept the element types (the evaluator does any), and none divides by 0."""
    kinds = [array.dtype.kind for array in inputs]
    if proto.op_type in ("And", "Not"):
        return set(kinds) == {"b"}
    if proto.op_type == "Where":
        return kinds[0] == "b" and kinds[1] == kinds[2] != "b"
    if proto.op_type in ("Div", "Mod") and not inputs[1].all():
        return False
    if proto.op_type in (*BINARY, "Concat"):
        return len(set(kinds)) == 1 and (kinds[0] != "b" or proto.op_type in ("Equal", "Concat"))
    return proto.op_type != "Floor" or kinds == ["f"]


def scalar(proto: NodeProto, values: Mapping[str, Array], name: str) -> Array:
    """Range takes scalars only; runtimes and this package take one element too."""
    value = values[name]
    return value.reshape(()) if proto.op_type == "Range" and value.size == 1 else value
