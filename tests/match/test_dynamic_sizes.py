"""A movement of dynamic sizes is refused if it may do something else at other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

import deployconv
from deployconv.graph import evaluate
from deployconv.match import movement
from tests.build import Array, assert_equal, integers, rewrite, run
from tests.match.graphs import (
    CONV,
    NEAREST,
    assert_never_wrong,
    codes,
    dynamic_shapes,
    floats,
    ints,
    parsed,
    resize,
    upsampled,
)

DOUBLED = "old = Slice(s, k2, k4) new = Mul(old, k2)"

UNIFORM = {
    "twice": f"{DOUBLED} hw = Identity(new)",
    "sum": "old = Slice(s, k2, k4) hw = Add(old, old)",
    "by gather": "h = Gather(s, k2) v = Gather(s, k3) hv = Concat<axis=0>(h, v) hw = Mul(hv, k2)",
    "by split": "n, c, h, v = Split<axis=0>(s, ones) hv = Concat<axis=0>(h, v) hw = Mul(hv, k2)",
    "half of four": "old = Slice(s, k2, k4) four = Mul(old, k4) hw = Div(four, k2)",
    "more and less": f"{DOUBLED} more = Add(new, k7) hw = Sub(more, k7)",
    "never below 1": f"{DOUBLED} hw = Max(new, k1)",
    "never below 2": f"{DOUBLED} hw = Max(new, k2)",
    "the larger": f"{DOUBLED} hw = Max(new, old)",
    "where it is equal": f"{DOUBLED} same = Equal(new, new) hw = Where(same, new, old)",
    "rounded": "old = Slice(s, k2, k4) f = Cast<to=1>(old) g = Mul(f, two) i = Floor(g)"
    " hw = Cast<to=7>(i)",
    "area over width": "h = Gather(s, k2) v = Gather(s, k3) hv = Mul(h, v) a = Mul(hv, k2)"
    " h2 = Div(a, v) v2 = Mul(v, k2) hw = Concat<axis=0>(h2, v2)",
}

THRESHOLDS = {
    "at least 6": f"{DOUBLED} hw = Max(new, k6)",
    "at least 3": f"{DOUBLED} hw = Max(new, k3)",
    "at most 1000": f"{DOUBLED} hw = Min(new, large)",
    "between": f"{DOUBLED} low = Max(new, k1) hw = Min(low, large)",
    "at most a multiple of a size": "old = Slice(s, k2, k4) h = Gather(s, k2) v = Gather(s, k3)"
    " v8 = Mul(v, k8) hm = Min(h, v8) hv = Concat<axis=0>(hm, v) hw = Mul(hv, k2)",
    "even": "old = Slice(s, k2, k4) half = Div(old, k2) hw = Mul(half, k4)",
    "a multiple of 8": "old = Slice(s, k2, k4) part = Div(old, k8) whole = Mul(part, k8)"
    " hw = Mul(whole, k2)",
    "without the remainder": f"{DOUBLED} rest = Mod(new, k8) hw = Sub(new, rest)",
    "at one size": f"{DOUBLED} there = Equal(old, seven) hw = Where(there, old, new)",
    "below a size": f"{DOUBLED} small = Less(old, seven) hw = Where(small, old, new)",
    "a polynomial": "old = Slice(s, k2, k4) p = Sub(old, sixteen) q = Sub(old, twentyfour)"
    " r = Sub(old, forty) pq = Mul(p, q) pqr = Mul(pq, r) twice = Mul(old, k2)"
    " hw = Add(twice, pqr)",
    "the batch": "old = Slice(s, k2, k4) n = Gather(s, k0) hw = Mul(old, n)",
    "the other axis": "h = Gather(s, k2) v = Gather(s, k3) vh = Concat<axis=0>(v, h)"
    " hw = Mul(vh, k2)",
    "a float that rounds": "old = Slice(s, k2, k4) f = Cast<to=1>(old) g = Mul(f, tenth)"
    " e = Mul(g, twenty) hw = Cast<to=7>(e)",
    "too large for its integers": f"{DOUBLED} a = Mul(new, huge) hw = Div(a, huge)",
    "cut short": f"{DOUBLED} hw = Slice(new, k0, two_to_31)",
}

CHAINS = {
    "Slice": "old# = Slice(s#, k2, k4) hw# = Mul(old#, k2)",
    "Identity": "i# = Identity(s#) old# = Slice(i#, k2, k4) hw# = Mul(old#, k2)",
    "int32": "i# = Cast<to=6>(s#) old# = Slice(i#, k2, k4) new# = Mul(old#, int32_two)"
    " hw# = Cast<to=7>(new#)",
    "float": "old# = Slice(s#, k2, k4) f# = Cast<to=1>(old#) g# = Mul(f#, two)"
    " hw# = Cast<to=7>(g#)",
}
"""Ways to compute the sizes of the Resize number #, whose input has the shape s#."""

CONSTANTS: dict[str, Array] = {
    "large": ints(1000),
    "ones": ints(1, 1, 1, 1),
    "seven": ints(7),
    "sixteen": ints(16),
    "twentyfour": ints(24),
    "forty": ints(40),
    "huge": ints(2**62),
    "two_to_31": ints(2**31 - 2),
    "two": np.array([2], np.float32),
    "int32_two": np.array([2], np.int32),
    "tenth": np.array([0.1], np.float32),
    "twenty": np.array([20], np.float32),
}


def sized(sizes: str) -> ModelProto:
    return resize(sizes, **CONSTANTS)


@pytest.mark.parametrize("sizes", UNIFORM.values(), ids=UNIFORM)
def test_sizes_that_are_twice_the_input_whatever_it_is(sizes: str) -> None:
    sites = assert_never_wrong(sized(sizes), dynamic_shapes())
    assert codes(sites) == [None]


def test_the_arithmetic_of_sizes_runs_once_for_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[list[str]] = []

    def prepared(nodes: Sequence[NodeProto], *rest: Any) -> Any:
        trials.append([node.op_type for node in nodes])
        return evaluate.prepared(nodes, *rest)

    monkeypatch.setattr(movement, "prepared", prepared)
    (site,) = deployconv.inspect(sized(UNIFORM["twice"])).sites
    assert site.reason is None
    assert trials
    assert all(ops == ["Resize"] for ops in trials)


@pytest.mark.parametrize("sizes", THRESHOLDS.values(), ids=THRESHOLDS)
def test_sizes_that_are_twice_the_input_sometimes(sizes: str) -> None:
    sites = assert_never_wrong(sized(sizes), dynamic_shapes())
    assert len(sites) == 1
    assert set(codes(sites)) <= {"unproven-dynamic-sizes", "dynamic-scale", None}


@pytest.mark.parametrize(
    "body",
    [
        f"d = MaxPool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(x) s = Shape(x)"
        f" z = Resize<{NEAREST}>(d, , , s)",
        f"d = Slice(x, k00, ends, spatial, k22) s = Shape(x) z = Resize<{NEAREST}>(d, , , s)",
    ],
    ids=["pooled", "every second"],
)
def test_a_skip_connection_is_twice_as_large_only_if_its_size_is_even(body: str) -> None:
    largest = 2**63 - 1
    original = upsampled(
        body, k00=ints(0, 0), ends=ints(largest, largest), spatial=ints(2, 3), k22=ints(2, 2)
    )
    assert codes(assert_never_wrong(original, dynamic_shapes())) == ["unproven-dynamic-sizes"]


def test_the_sizes_after_a_conv_are_known() -> None:
    """The sizes after a Conv that keeps them are those of ``x``; after other Convs they are not."""
    sizes = "s = Shape(x) nc = Slice(s, k0, k2) old = Slice(s, k2, k4) hw = Mul(old, k2)"
    numbers = {f"k{number}": ints(number) for number in (0, 2, 4)}
    for pad, code in ((1, None), (0, "unproven-dynamic-sizes")):
        body = (
            f"c = Conv<pads=[{pad},{pad},{pad},{pad}]>(x, v) {sizes} to = Concat<axis=0>(nc, hw)"
            f" z = Resize<{NEAREST}>(c, , , to)"
        )
        original = upsampled(body, v=np.ones((2, 2, 3, 3), np.float32), **numbers)
        found = codes(assert_never_wrong(original, dynamic_shapes()))
        assert found in ([code], ["dynamic-scale"]) if code else found == [None]


@pytest.mark.parametrize("size", [-1, "?", "-1", "N", None], ids=str)
@pytest.mark.parametrize(
    "nodes",
    ["y = ConvTranspose<strides=[2,2]>(x, v)", f"z = Resize<{NEAREST}>(x, , scales) {CONV}"],
)
def test_open_sizes_of_one_name_or_of_none(size: int | str | None, nodes: str) -> None:
    """Batch, height and width may have one name; onnxruntime takes any sizes then."""
    original = parsed(nodes, {"v": integers(2, 2, 4, 4), "scales": floats(1, 1, 2, 2)})
    dims = original.graph.input[0].type.tensor_type.shape.dim
    for axis in (0, 2, 3):
        dims[axis].Clear()
        if isinstance(size, int):
            dims[axis].dim_value = size
        elif size is not None:
            dims[axis].dim_param = size
    done, after = rewrite(original, shape={"x": (2, 2, 7, 5)})
    assert [site.status for site in done.sites] == ["rewritten"]
    for shape in [(1, 2, 4, 9), (3, 2, 6, 1)]:
        feeds = {"x": integers(*shape)}
        assert_equal(run(original, feeds), run(after, feeds))


@pytest.mark.parametrize("dims", ["n,2,h,w", "1,2,4,3"], ids=["dynamic", "static"])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("conv", ["pads=[1,1,1,1]", 'auto_pad="SAME_UPPER"'], ids=["pads", "same"])
def test_each_of_two_layers_whose_sizes_are_computed(dims: str, chain: str, conv: str) -> None:
    """The input of the second Resize has the size that the first one computes."""

    def enlarged(number: int, x: str) -> str:
        body = (
            f"s# = Shape({x}) nc# = Slice(s#, k0, k2) {chain} to# = Concat<axis=0>(nc#, hw#)"
            f" z# = Resize<{NEAREST}>({x}, , , to#)"
        )
        return body.replace("#", str(number))

    body = (
        f"{enlarged(1, 'x')} c = Conv<{conv}>(z1, w, b) r = Relu(c)"
        f" {enlarged(2, 'r')} y = Conv<{conv}>(z2, v)"
    )
    constants = {**{f"k{number}": ints(number) for number in (0, 2, 4)}, **CONSTANTS}
    original = parsed(body, {**constants, "v": integers(2, 3, 3, 3)}, dims)
    sites = assert_never_wrong(original, dynamic_shapes() if "h" in dims else ())
    assert codes(sites) == [None, None]
