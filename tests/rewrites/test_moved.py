"""A bias behind a Transpose, Squeeze or Unsqueeze is part of the layer, and the moves stay."""

from __future__ import annotations

from collections import Counter
from itertools import count

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.graph.view import View, view
from deployconv.match import UpsampleSite, find_sites
from deployconv.match.site import AxisMove
from deployconv.proof.certificate import certify
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.kept import FoldedLayer, folded_in_place
from deployconv.rewrites.moved import moved_axes
from deployconv.rewrites.planned_site import absorbing
from tests.build import Array, assert_equal, integers, ops, rewrite, run
from tests.match.graphs import (
    assert_never_wrong,
    codes,
    dynamic_shapes,
    feeds,
    floats,
    ints,
    parsed,
)

UP = "z = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, w, b)"
LAST = "t = Transpose<perm=[0,2,3,1]>(z)"
BACK = "Transpose<perm=[0,3,1,2]>"
CONSTANTS: dict[str, Array] = {
    "w": integers(2, 3, 4, 4, seed=1),
    "b": integers(3, seed=2),
    "c": integers(3, seed=3),
    "c11": integers(3, 1, 1, seed=3),
    "c1": integers(3, 1, seed=3),
    "shape": ints(1, 1, 1, -1),
    "rows": integers(6, 1, seed=4),
    "two": floats(2),
    "ones": floats(1, 1, 1),
    "zeros": floats(0, 0, 0),
    "k2": ints(2),
    "k0": ints(0),
}
ADDED = {
    "channels last": (f"{UP} {LAST} y = Add(t, c)", {"Transpose": 1}),
    "several layers": (
        f"{UP} {LAST} m = Mul(t, two) s = Sub(c, m) y = Add(s, c)",
        {"Transpose": 1},
    ),
    "and back": (f"{UP} {LAST} a = Add(t, c) y = {BACK}(a)", {}),
    "back at once": (f"{UP} {LAST} y = {BACK}(t)", {}),
    "back at once, then a bias": (f"{UP} {LAST} u = {BACK}(t) y = Add(u, c11)", {}),
    "rows for columns": (
        f"{UP} t = Transpose<perm=[0,1,3,2]>(z) y = BatchNormalization<epsilon=0.0>"
        "(t, c, c, zeros, ones)",
        {"Transpose": 1},
    ),
    "a new axis": (f"{UP} u = Unsqueeze(z, k0) y = Add(u, c11)", {"Unsqueeze": 1}),
    "a bias of another shape": (
        f"{UP} {LAST} r = Reshape(c, shape) y = Add(r, t)",
        {"Transpose": 1},
    ),
    "with an Identity": (f"{UP} i = Identity(z) {LAST.replace('z', 'i')} y = Add(t, c)",
                         {"Transpose": 1}),
}  # fmt: skip
STAYS = {
    "nothing behind it": (f"{UP} y = Transpose<perm=[0,2,3,1]>(z)", ["Transpose"]),
    "by row": (f"{UP} {LAST} y = Add(t, rows)", ["Transpose", "Add"]),
    "batch normalization of rows": (
        f"{UP} {LAST} y = BatchNormalization(t, eight, eight, eight, eight)",
        ["Transpose", "BatchNormalization"],
    ),
    "the moved image is read twice": (
        f"{UP} {LAST} a = Add(t, c) y = Mul(a, t)",
        ["Transpose", "Add", "Mul"],
    ),
    "a Relu between": (f"{UP} {LAST} r = Relu(t) y = Add(r, c)", ["Transpose", "Relu", "Add"]),
}


def built(body: str, dims: str) -> ModelProto:
    return parsed(body, {**CONSTANTS, "eight": floats(*[1] * 8)}, dims)


def site_of(model: ModelProto) -> tuple[UpsampleSite, View]:
    seen = view(load(model))
    (site,) = find_sites(seen)
    assert isinstance(site, UpsampleSite)
    return site, seen


def emitted(made: FoldedLayer) -> list[gs.Node]:
    names = count()
    emitter = Emitter(made.scope.opset, lambda suffix: f"{suffix}{next(names)}")
    made.emit(emitter)
    return emitter.nodes


@pytest.mark.parametrize("dims", ["1,2,4,3", "n,2,h,w"], ids=["static", "dynamic"])
@pytest.mark.parametrize(("body", "left"), ADDED.values(), ids=ADDED)
@pytest.mark.parametrize("form", ["crop", "pad", "split"])
def test_it_is_part_of_the_layer(body: str, left: dict[str, int], form: str, dims: str) -> None:
    model = built(body, dims)
    shapes = dynamic_shapes()[:5] if "n" in dims else ()
    assert codes(assert_never_wrong(model, shapes, form=form)) == [None]
    done, after = rewrite(model, form=form)
    assert done.sites[0].certificate == "exact"
    if form == "crop":
        assert ops(after) == {"Conv": 1, "DepthToSpace": 1, "Slice": 1, **left}


@pytest.mark.parametrize(("body", "left"), STAYS.values(), ids=STAYS)
def test_what_is_no_bias_stays(body: str, left: list[str]) -> None:
    model = built(body, "1,2,4,3")
    assert codes(assert_never_wrong(model)) == [None]
    found = ops(rewrite(model, verify=False)[1])
    assert not Counter(left) - found


@pytest.mark.parametrize("dims", ["1,2,1,5", "n,2,1,w"], ids=["static", "dynamic"])
def test_a_line_that_was_an_image_of_one_row(dims: str) -> None:
    body = (
        "z = ConvTranspose<strides=[1,2], pads=[0,1,0,1]>(x, v) s = Squeeze(z, k2) y = Add(s, c1)"
    )
    model = parsed(body, {**CONSTANTS, "v": integers(2, 3, 1, 4)}, dims)
    shapes = [(1 + at, 2, 1, size) for at, size in enumerate((1, 2, 5, 9))] if "n" in dims else ()
    assert codes(assert_never_wrong(model, shapes)) == [None]
    assert "c1" not in {name for node in rewrite(model)[1].graph.node for name in node.input}


def test_an_axis_that_may_be_longer_is_not_taken_out() -> None:
    body = (
        "z = ConvTranspose<strides=[1,2], pads=[0,1,0,1]>(x, v) s = Squeeze(z, k2) y = Add(s, c1)"
    )
    model = parsed(body, {**CONSTANTS, "v": integers(2, 3, 1, 4)}, "1,2,h,5")
    assert codes(assert_never_wrong(model, [(1, 2, 1, 5)])) == [None]
    assert ops(rewrite(model, verify=False)[1])["Add"] == 1


@pytest.mark.parametrize("opset", [7, 11, 12, 13])
def test_axes_are_attributes_or_inputs(opset: int) -> None:
    inputs, axes = ("z, k2", "") if opset >= 13 else ("z", "<axes=[2]>")
    body = f"z = ConvTranspose<strides=[1,2]>(x, v) s = Squeeze{axes}({inputs}) y = Add(s, c1)"
    model = parsed(body, {**CONSTANTS, "v": integers(2, 3, 1, 2)}, "1,2,1,5", opset=opset)
    assert codes(assert_never_wrong(model)) == [None]
    assert ops(rewrite(model)[1])["Add"] == 0


@pytest.mark.parametrize("form", ["separable", "matrix"])
@pytest.mark.parametrize("name", ["channels last", "and back"])
def test_forms_of_a_depthwise_layer(form: str, name: str) -> None:
    body = ADDED[name][0].replace("strides", "group=2, strides").replace(", b)", ")")
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)
    weight = np.broadcast_to(kernel, (2, 1, 4, 4)).copy()
    model = parsed(body, {**CONSTANTS, "w": weight, "c": integers(2)}, "1,2,4,3")
    (site,) = assert_never_wrong(model, form=form)
    assert site.form == form
    assert ops(rewrite(model, form=form)[1])["Add"] == (form == "matrix")


@pytest.mark.parametrize("policy", ["cost", "fastest"])
@pytest.mark.parametrize(
    "after",
    ["y = Relu(a)", f"r = {BACK}(a) y = Relu(r)", f"q = {BACK}(a) y = Conv<pads=[1,1,1,1]>(q, e)"],
    ids=["last", "back", "Conv"],
)
def test_whatever_the_policy_makes_of_it(policy: str, after: str) -> None:
    body = f"{UP} {LAST} a = Add(t, c) {after}"
    model = parsed(body, {**CONSTANTS, "e": integers(2, 3, 3, 3)}, "1,2,4,3")
    done, made = rewrite(model, policy=policy, budget=1)
    assert {site.certificate for site in done.sites} <= {"exact", None}
    given = feeds(1, 2, 4, 3)
    assert_equal(run(model, given), run(made, given))


def test_a_layer_that_is_kept_takes_its_bias_too() -> None:
    """The ConvTranspose stays, as no form of it is faster."""
    model = built(ADDED["channels last"][0], "1,2,4,3")
    made = folded_in_place(absorbing(*site_of(model)))
    assert made is not None
    assert [node.op for node in emitted(made)] == ["ConvTranspose", "Transpose"]
    assert certify(made, "up").verdict == "exact"


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([("Transpose", (0, 2, 3, 1))], (0, 2, 3, 1)),
        ([("Transpose", (0, 2, 3, 1)), ("Transpose", (0, 3, 1, 2))], (0, 1, 2, 3)),
        ([("Squeeze", (-2,))], (0, 1, 3)),
        ([("Unsqueeze", (1, -1))], (0, -1, 1, 2, 3, -1)),
        ([("Unsqueeze", (0,)), ("Squeeze", (0,))], (0, 1, 2, 3)),
        ([("Squeeze", (2,)), ("Transpose", (0, 2, 1)), ("Unsqueeze", (1,))], (0, -1, 3, 1)),
    ],
)
def test_the_axes_after_several_moves(
    moves: list[tuple[str, tuple[int, ...]]], expected: tuple[int, ...]
) -> None:
    assert moved_axes([AxisMove(*move) for move in moves], 4) == expected
