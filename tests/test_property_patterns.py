"""One constant of a recognised upsampling is changed: refused, left alone, or bit for bit right.

Sizes that the recognisers never tried are run too. By hand, with more cases a pattern::

    PATTERN_CASES=2000 python -m pytest -n 2 tests/test_property_patterns.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, numpy_helper

from deployconv.errors import BackendUnavailable, DeployconvError, ModelError
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import Planning, apply, plan_model
from tests.build import Array, assert_equal, run
from tests.match.graphs import declared, dynamic_shapes, feeds
from tests.match.patterns import PATTERNS

CASES = int(os.environ.get("PATTERN_CASES", "25"))

MODES = {
    "mode": ["nearest", "linear", "cubic"],
    "nearest_mode": ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"],
    "coordinate_transformation_mode": [
        "asymmetric",
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "tf_half_pixel_for_nn",
    ],
}
WHOLE = (-8, -2, -1, 0, 1, 2, 3, 4, 7, 8, 16, 17, 24, 40, 64, 100)
BOUNDS = (300, 1000, 2**31 - 2, 2**31 - 1, 2**31, 2**63 - 1, -(2**31), -(2**63))
"""For what only bounds others; as a size or a repeat these would fill the memory."""
NAMES_OF_BOUNDS = frozenset({"least", "special", "bound", "starts", "ends", "last"})
FLOATS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 2.0000002, 1.0000001, 1e-9, 1e9)
"""Not below 0, where onnx's shape inference aborts the process."""


@dataclass(frozen=True)
class Knob:
    """One number or word of a model: what it can be turned to, and how."""

    label: str
    values: tuple[Any, ...]
    turn: Callable[[ModelProto, Any], None]


def knobs(model: ModelProto) -> Iterator[Knob]:
    """Every element of every constant but the weights of the Conv, every attribute."""
    for position, initializer in enumerate(model.graph.initializer):
        if initializer.name in ("w", "b", "w8", "fir"):
            continue
        values = numpy_helper.to_array(initializer)
        for at in range(values.size):
            yield Knob(
                f"{initializer.name}[{at}]",
                choices(initializer.name, values, at),
                lambda copy, value, position=position, at=at: set_element(
                    copy, position, at, value
                ),
            )
    for position, proto in enumerate(model.graph.node):
        for number, attribute in enumerate(proto.attribute):
            yield from attribute_knobs(attribute, position, number, proto.op_type)


def choices(name: str, values: Array, at: int) -> tuple[Any, ...]:
    own = values.flat[at].item()
    if values.dtype.kind == "b":
        return (not own,)
    if values.dtype.kind == "f":
        # Only for what layers compute with must numbers stay such that no sum is rounded.
        found = FACTORS if name in ("scales", "mask", "k", "gain") else FLOATS
        return tuple(value for value in (*found, own + 1, own * 2) if value != own)
    near = (own - 2, own - 1, own + 1, own + 2, -own)
    far = BOUNDS if name in NAMES_OF_BOUNDS else ()
    limits = range(-(2**63), 2**63)
    return tuple(value for value in (*WHOLE, *near, *far) if value != own and value in limits)


def set_element(model: ModelProto, position: int, at: int, value: Any) -> None:
    initializer = model.graph.initializer[position]
    values = numpy_helper.to_array(initializer).copy()
    values.reshape(-1)[at] = value
    initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))


def attribute_knobs(
    attribute: AttributeProto, position: int, number: int, op: str
) -> Iterator[Knob]:
    def at(copy: ModelProto) -> AttributeProto:
        return copy.graph.node[position].attribute[number]

    def set_word(copy: ModelProto, value: str) -> None:
        at(copy).s = value.encode()

    def set_integer(copy: ModelProto, value: int) -> None:
        at(copy).i = value

    def swap(copy: ModelProto, pair: tuple[int, int]) -> None:
        first, second = pair
        values = list(at(copy).ints)
        values[first], values[second] = values[second], values[first]
        at(copy).ints[:] = values

    label = f"{op}.{attribute.name}"
    if attribute.name in MODES:
        yield Knob(label, tuple(MODES[attribute.name]), set_word)
    elif attribute.type == AttributeProto.INT and attribute.name != "to":
        yield Knob(label, tuple({*range(-2, 6)} - {attribute.i}), set_integer)
    elif attribute.name == "perm":
        count = len(attribute.ints)
        pairs = tuple((a, b) for a in range(count) for b in range(a + 1, count))
        yield Knob(label, pairs, swap)
    elif attribute.type == AttributeProto.INTS:
        for place in range(len(attribute.ints)):

            def set_place(copy: ModelProto, value: int, place: int = place) -> None:
                at(copy).ints[place] = value

            yield Knob(f"{label}[{place}]", tuple(range(-1, 6)), set_place)


def outcome(model: ModelProto, shapes: list[tuple[int, ...]]) -> str:
    """What became of ``model``; AssertionError where that is another output."""
    original = ModelProto()
    original.CopyFrom(model)
    try:
        planning = plan_model(load(model), RewriteOptions())
    except ModelError:
        return "invalid"
    if not any(planned.rewrite for planned in planning.sites):
        found = [planned.report.reason for planned in planning.sites]
        return found[-1].code if found and found[-1] else "no upsampling"
    expected = {}
    for shape in shapes:
        try:
            expected[shape] = run(original, feeds(*shape))
        except DeployconvError:
            continue  # no size of this model
    planning = certified(planning)
    if not expected:
        return "it runs at no size"
    after = apply(planning).proto
    for shape, outputs in expected.items():
        assert_equal(outputs, run(after, feeds(*shape)))
    return "rewritten"


def certified(planning: Planning) -> Planning:
    try:
        done = certify_sites(planning, 0)
    except BackendUnavailable:
        return planning  # the original does not run, as will be seen
    verdicts = {planned.report.certificate for planned in done.sites if planned.rewrite}
    assert verdicts == {"exact"}
    return done


def shapes_of(model: ModelProto) -> list[tuple[int, ...]]:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if any(dim.dim_param for dim in dims):
        return [*dynamic_shapes(), (2, 2, 7, 16), (1, 2, 24, 40)]
    return [declared(model)]


each_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=map("-".join, PATTERNS))


@each_pattern
def test_it_is_recognised_as_it_stands(pattern: tuple[str, str]) -> None:
    model = PATTERNS[pattern]()
    assert outcome(model, shapes_of(model)) == "rewritten"


@each_pattern
@settings(max_examples=CASES)
@given(data=st.data())
def test_one_change_is_never_wrong(pattern: tuple[str, str], data: st.DataObject) -> None:
    model = PATTERNS[pattern]()
    shapes = shapes_of(model)
    knob = data.draw(st.sampled_from(list(knobs(model))), "knob")
    value = data.draw(st.sampled_from(knob.values), "value")
    knob.turn(model, value)
    event(outcome(model, shapes))


def test_no_array_is_shared_between_models() -> None:
    """Every call makes a model of its own, so that a change does not outlive its case."""
    for made in PATTERNS.values():
        first, second = made(), made()
        first.graph.initializer[0].ClearField("raw_data")
        assert np.array_equal(
            numpy_helper.to_array(second.graph.initializer[0]),
            numpy_helper.to_array(made().graph.initializer[0]),
        )
