"""Repetition of each pixel by Split and Concat, and a crop in front of the upsampling."""

from __future__ import annotations

import pytest

import deployconv
from tests.build import integers, ops, rewrite
from tests.match.graphs import (
    CONV,
    NEAREST,
    assert_never_wrong,
    codes,
    dynamic_shapes,
    floats,
    ints,
    parsed,
)

DOUBLE = floats(1, 1, 2, 2)


def repeated(x: str, y: str, axis: int, size: int, by_tile: bool) -> str:
    """Cut ``x`` into ``size`` slices, repeat each one and join them."""
    parts = [f"{y}{number}" for number in range(size)]
    split = f"{', '.join(parts)} = Split<axis={axis}>({x})"
    if not by_tile:
        twice = [part for part in parts for _ in range(2)]
        return f"{split} {y} = Concat<axis={axis}>({', '.join(twice)})"
    tiles = " ".join(f"{part}t = Tile({part}, twice{axis})" for part in parts)
    joined = ", ".join(f"{part}t" for part in parts)
    return f"{split} {tiles} {y} = Concat<axis={axis}>({joined})"


@pytest.mark.parametrize("dims", ["1,2,4,3", "n,2,4,3"], ids=["static", "dynamic batch"])
@pytest.mark.parametrize("by_tile", [True, False], ids=["Tile", "Concat twice"])
def test_every_slice_repeated(by_tile: bool, dims: str) -> None:
    body = f"{repeated('x', 'r', 2, 4, by_tile)} {repeated('r', 'z', 3, 3, by_tile)} {CONV}"
    constants = {"twice2": ints(1, 1, 2, 1), "twice3": ints(1, 1, 1, 2)}
    original = parsed(body, constants, dims)
    shapes = [(batch, 2, 4, 3) for batch in (1, 3)] if "n" in dims else ()
    assert codes(assert_never_wrong(original, shapes)) == [None]
    _, after = rewrite(original, verify=False)
    assert not {"Split", "Tile", "Concat"} & set(ops(after))


def test_a_slice_for_every_column_of_a_wide_image() -> None:
    body = f"{repeated('x', 'z', 3, 100, by_tile=True)} y = Conv<pads=[0,1,0,1]>(z, v)"
    constants = {"twice3": ints(1, 1, 1, 2), "v": integers(3, 2, 1, 3)}
    assert codes(assert_never_wrong(parsed(body, constants, "1,2,2,100"))) == [None]


def test_slices_that_are_repeated_unevenly_are_no_upsampling() -> None:
    body = f"a, b0 = Split<axis=3>(x, parts) z = Concat<axis=3>(a, b0, b0) {CONV}"
    assert assert_never_wrong(parsed(body, {"parts": ints(1, 2)})) == ()


@pytest.mark.parametrize("dims", ["1,2,4,3", "n,2,h,w"], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "between", ["z = Identity(r)", "z = Relu(r)", "z = Pad(r, pads)"], ids=lambda body: body[4:8]
)
def test_an_image_that_is_cropped_before_it_is_enlarged(between: str, dims: str) -> None:
    """The layer begins behind the crop: the Conv pads with zeros what is the border there."""
    body = f"c = Slice(x, first, last, rows) r = Resize<{NEAREST}>(c, , scales) {between} {CONV}"
    bounds = {"first": ints(1), "last": ints(-1), "rows": ints(2)}
    pads = ints(0, 0, 1, 1, 0, 0, 0, 2)
    original = parsed(body, {"scales": DOUBLE, "pads": pads, **bounds}, dims)
    shapes = [shape for shape in dynamic_shapes() if shape[2] > 2] if "n" in dims else ()
    assert codes(assert_never_wrong(original, shapes)) == [None]
    _, after = rewrite(original, verify=False)
    assert ops(after)["Resize"] == 0
    assert after.graph.node[0].op_type == "Slice"


def test_a_model_of_which_one_layer_was_rewritten_before() -> None:
    """The crop behind the new layer stands in front of the next Resize."""
    body = (
        f"r = Resize<{NEAREST}>(x, , scales) c = Conv<pads=[1,1,1,1]>(r, w, b)"
        f" z = Resize<{NEAREST}>(c, , scales) y = Conv<pads=[1,1,1,1]>(z, v)"
    )
    original = parsed(body, {"scales": DOUBLE, "v": integers(2, 3, 3, 3)})
    first, _ = deployconv.inspect(original).sites
    _, partly = rewrite(original, only=[first.id], form="crop")
    assert "Slice" in ops(partly)
    resizes = [site for site in assert_never_wrong(partly) if site.pattern == "nearest_resize"]
    assert codes(resizes) == [None]
