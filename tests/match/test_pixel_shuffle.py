"""Which movements of channels into space are pixel shuffles, and in which channel order."""

from __future__ import annotations

from itertools import permutations
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import deployconv
from deployconv.match.shuffle_map import fit_channels, order_of
from tests.build import Array, integers, ops, rewrite
from tests.match.graphs import assert_never_wrong, codes, dynamic_shapes, ints, parsed


def shuffled(channels: int, stride: tuple[int, ...], sizes: tuple[int, ...], order: str) -> Array:
    """The map of a pixel shuffle of one image, from the definition: element by element."""
    depth = channels * prod(stride)
    numbers = np.arange(depth * prod(sizes)).reshape(depth, *sizes)
    result = np.zeros((1, channels, *(s * i for s, i in zip(stride, sizes, strict=True))), int)
    for position in np.ndindex(*result.shape[1:]):
        channel, *at = position
        pixel = tuple(o // s for o, s in zip(at, stride, strict=True))
        phase = int(np.ravel_multi_index([o % s for o, s in zip(at, stride, strict=True)], stride))
        source = channel * prod(stride) + phase if order == "CRD" else phase * channels + channel
        result[(0, *position)] = numbers[(source, *pixel)]
    return result


def fit_order(sources: Array, shape: tuple[int, ...], stride: tuple[int, ...]) -> str | None:
    """The channel order for which ``sources`` is a pixel shuffle."""
    channels = fit_channels(sources, shape, stride)
    return None if channels is None else order_of(channels, prod(stride))


strides = (
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple).filter(lambda s: prod(s) > 1)
)


@given(st.integers(2, 3), strides, st.sampled_from(["CRD", "DCR"]), st.data())
def test_the_order_of_a_shuffle(
    channels: int, stride: tuple[int, ...], order: str, data: st.DataObject
) -> None:
    sizes = tuple(data.draw(st.integers(1, 3)) for _ in stride)
    shape = (1, channels * prod(stride), *sizes)
    sources = shuffled(channels, stride, sizes, order)
    assert fit_order(sources, shape, stride) == order
    first, second = data.draw(st.permutations(range(sources.size)))[:2]
    sources.flat[[first, second]] = sources.flat[[second, first]]
    assert fit_order(sources, shape, stride) != order


def test_with_one_channel_both_orders_are_one() -> None:
    for order in ("CRD", "DCR"):
        assert fit_order(shuffled(1, (2, 2), (3, 2), order), (1, 4, 3, 2), (2, 2)) == "CRD"


def test_of_all_permutations_two_are_shuffles() -> None:
    """Channels, factors and sizes of the input all differ, but for the factors of one block."""
    numbers = np.arange(8 * 15).reshape(1, 2, 2, 2, 3, 5)
    found = {}
    for perm in permutations(range(6)):
        moved = numbers.transpose(perm)
        if moved.shape[0] == 1 and moved.size == 120:
            result = moved.reshape(1, 2, 6, 10)
            order = fit_order(result, (1, 8, 3, 5), (2, 2))
            if order is not None:
                found[perm] = order
    assert found == {(0, 1, 4, 2, 5, 3): "CRD", (0, 3, 4, 1, 5, 2): "DCR"}


PERMS = [
    perm
    for perm in permutations(range(1, 6))
    if perm not in ((1, 4, 2, 5, 3), (3, 4, 1, 5, 2), (1, 4, 3, 5, 2))
]


@pytest.mark.parametrize("perm", PERMS[::7], ids=str)
@pytest.mark.parametrize("dims", ["1,8,4,4", "n,8,h,v"])
def test_no_other_permutation_is_touched(perm: tuple[int, ...], dims: str) -> None:
    dynamic = "n" in dims
    body = f"a = Reshape(x, split) t = Transpose<perm={[0, *perm]}>(a) y = Reshape(t, merged)"
    if dynamic:
        sizes = "s = Shape(x) n = Slice(s, k0, k1) h = Slice(s, k2, k3) v = Slice(s, k3, k4)"
        split = "split = Concat<axis=0>(n, k2, k2, k2, h, v)"
        merged = "h2 = Mul(h, k2) v2 = Mul(v, k2) merged = Concat<axis=0>(n, k2, h2, v2)"
        body = f"{sizes} {split} {merged} {body}"
    constants = {f"k{number}": ints(number) for number in range(5)}
    constants |= (
        {"split": ints(1, 2, 2, 2, 4, 4), "merged": ints(1, 2, 8, 8)} if not dynamic else {}
    )
    model = parsed(body, constants, dims)
    shapes = dynamic_shapes(8) if dynamic else [(1, 8, 4, 4)]
    assert assert_never_wrong(model, shapes) == ()


@pytest.mark.parametrize(
    ("sizes", "stride", "shuffle"),
    [((4,), (2,), "transpose"), ((3, 4), (2, 3), "transpose"), ((2, 3, 2), (2, 2, 2), "transpose"),
     ((3, 4), (2, 2), "crd"), ((3, 4), (3, 3), "crd"), ((3, 4), (2, 1), "transpose")],
)  # fmt: skip
def test_ranks_and_factors(sizes: tuple[int, ...], stride: tuple[int, ...], shuffle: str) -> None:
    rank, channels = len(sizes), 2
    order = [0, 1] + [axis for i in range(rank) for axis in (2 + rank + i, 2 + i)]
    merged = [s * i for s, i in zip(stride, sizes, strict=True)]
    depth = channels * prod(stride)
    body = f"a = Reshape(x, split) t = Transpose<perm={order}>(a) y = Reshape(t, merged)"
    constants = {"split": ints(1, channels, *stride, *sizes), "merged": ints(1, channels, *merged)}
    model = parsed(body, constants, ",".join(map(str, (1, depth, *sizes))))
    (site,) = assert_never_wrong(model)
    assert (site.pattern, site.stride) == ("pixel_shuffle", stride)
    if shuffle == "crd":
        assert (site.status, site.shuffle) == ("rewritten", "crd")
        assert ops(rewrite(model, verify=False)[1]) == {"DepthToSpace": 1}


def test_what_else_is_read_stays() -> None:
    """The Transpose has another reader: it stays, and the new shuffle is added."""
    body = "a = Reshape(x, split) t = Transpose<perm=[0,1,4,2,5,3]>(a) p = Reshape(t, merged)"
    sums = "r = ReduceSum<keepdims=0>(t) y = Add(p, r)"
    constants = {"split": ints(1, 2, 2, 2, 4, 3), "merged": ints(1, 2, 8, 6)}
    model = parsed(f"{body} {sums}", constants, "1,8,4,3")
    assert codes(assert_never_wrong(model)) == [None]
    assert ops(rewrite(model, verify=False)[1])["Transpose"] == 1


def test_a_conv_that_others_read_keeps_its_order() -> None:
    body = 'c = Conv<pads=[1,1,1,1]>(x, w8) d = DepthToSpace<blocksize=2, mode="CRD">(c)'
    model = parsed(
        f"{body} m = ReduceMax<keepdims=0>(c) y = Add(d, m)", {"w8": integers(8, 2, 3, 3)}
    )
    assert codes(assert_never_wrong(model, shuffle="dcr")) == ["already-lowered"]


def test_a_conv_of_another_domain_is_left_alone() -> None:
    """What the operator computes, and the layout of its weight, is not known."""
    model = parsed(
        'c = custom.Conv<pads=[1,1,1,1]>(x, w, b) y = DepthToSpace<blocksize=2, mode="DCR">(c)',
        {"w": integers(8, 2, 3, 3), "b": integers(8)},
    )
    model.opset_import.append(helper.make_opsetid("custom", 1))
    (site,) = deployconv.inspect(model).sites
    assert site.nodes == ("DepthToSpace_1",)
