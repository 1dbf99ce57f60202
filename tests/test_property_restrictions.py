"""Random ConvTranspose layers within random restrictions, against PyTorch.

What is written keeps to the restrictions and is equal bit for bit, or the layer stays with a reason
that names something which the restrictions do not allow. By hand, with more cases::

    RESTRICTION_CASES=20000 python -m pytest tests/test_property_restrictions.py
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from deployconv.graph.load import load
from deployconv.options import LayerRequest, RewriteOptions
from deployconv.restrictions import ChannelOrder, Restrictions
from deployconv.rewrites.planning import apply, plan_model
from tests.build import assert_equal, run
from tests.match.graphs import feeds
from tests.match.patterns import PATTERNS
from tests.rewrites.limited import disobeyed
from tests.test_property_conv_transpose import Layer, by_torch, layers
from tests.test_property_patterns import shapes_of

CASES = int(os.environ.get("RESTRICTION_CASES", "150"))

OPERATORS = (
    *("DepthToSpace", "Reshape", "Transpose", "Slice", "Concat", "Split", "Col2Im", "Unsqueeze"),
    *("Squeeze", "Resize", "Upsample", "Mul", "Add", "Shape", "Flatten", "MatMul", "ConvTranspose"),
)
ORDERS: tuple[ChannelOrder, ...] = ("CRD", "DCR")


@st.composite
def restrictions(draw: st.DrawFn, rank: int) -> Restrictions:
    some = draw(st.booleans()), draw(st.booleans())
    operators = st.frozensets(st.sampled_from(OPERATORS)).map(lambda names: names | {"Conv"})
    blocks = st.dictionaries(
        st.sampled_from(ORDERS), st.none() | st.lists(st.integers(2, 4)).map(tuple)
    )
    return Restrictions(
        operators=draw(operators) if some[0] else None,
        depth_to_space=draw(blocks) if some[1] else None,
        max_rank=draw(st.none() | st.integers(rank + 1, 2 * rank + 2)),
        reshape_zero=draw(st.booleans()),
        reshape_minus_one=draw(st.booleans()),
        computed_shapes=draw(st.booleans()),
        crops=draw(st.booleans()),
        transposed_pads=draw(st.booleans()),
        shuffle_in_twos=draw(st.booleans()),
    )


def names_what_is_missing(text: str, limits: Restrictions) -> bool:
    """Whether a reason ends in a list of things that ``limits`` do not allow."""
    needed = re.split(", | and ", text.rpartition(" needs ")[2])
    taken = limits.operators
    return all(
        (taken is not None and one.isidentifier() and one not in taken)
        or ("DepthToSpace(" in one and limits.depth_to_space is not None)
        or ("dimensions" in one and limits.max_rank is not None)
        or ("of 0 " in one and not limits.reshape_zero)
        or ("of -1 " in one and not limits.reshape_minus_one)
        or ("computed" in one and not limits.computed_shapes)
        or (one == "a Slice" and not limits.crops)
        or ("pads" in one and not limits.transposed_pads)
        for one in needed
    )


def check(layer: Layer, limits: Restrictions) -> None:
    x, weight, bias = layer.arrays
    original = layer.model(weight, bias, layer.group)
    asked = LayerRequest(layer.form, layer.shuffle, limits)
    planning = plan_model(load(original), RewriteOptions(request_for=lambda _: asked))
    (report,) = planning.reports
    if report.reason is not None:
        event(report.reason.code)
        if report.reason.code == "target-restrictions":
            assert names_what_is_missing(report.reason.text, limits), report.reason.text
        return
    event(f"{report.form}, {report.shuffle}")
    after = apply(planning).proto
    assert list(disobeyed(original, after, limits)) == []
    np.testing.assert_array_equal(run(after, {"x": x})["y"], by_torch(layer), strict=True)


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=-(-CASES // 3))
@given(data=st.data())
def test_what_is_written_keeps_to_the_restrictions(rank: int, data: st.DataObject) -> None:
    layer = data.draw(layers(rank))
    if data.draw(st.booleans()):  # as most targets have them
        static = tuple(replace(axis, dynamic=False) for axis in layer.axes)
        layer = replace(layer, axes=static, dynamic_batch=False)
    check(layer, data.draw(restrictions(rank)))


LIMITS = {
    "NPU": Restrictions(
        operators=frozenset({"Conv", "Concat", "Reshape", "Transpose"}),
        max_rank=4,
        reshape_zero=False,
        reshape_minus_one=False,
        computed_shapes=False,
        crops=False,
    ),
    "blocks of two in one order, no Slice": Restrictions(
        depth_to_space={"CRD": (2,)}, crops=False, symbolic_shapes=False
    ),
    "joins of phases": Restrictions(
        operators=frozenset({"Conv", "Concat", "Reshape", "Resize", "Mul", "Add", "Slice"})
    ),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=list(LIMITS))
@pytest.mark.parametrize("pattern", PATTERNS, ids=map("-".join, PATTERNS))
def test_every_pattern_keeps_to_the_restrictions(
    pattern: tuple[str, str], limits: Restrictions
) -> None:
    original = PATTERNS[pattern]()
    asked = LayerRequest(restrictions=limits)
    planning = plan_model(load(original), RewriteOptions(request_for=lambda _: asked))
    after = apply(planning).proto
    assert list(disobeyed(original, after, limits)) == []
    for planned in planning.sites:
        reason = planned.report.reason
        if reason is not None and reason.code == "target-restrictions":
            assert names_what_is_missing(reason.text, limits), reason.text
    for shape in shapes_of(original)[-2:]:
        assert_equal(run(original, feeds(*shape)), run(after, feeds(*shape)))
