"""Pixel shuffles of several nodes whose channels are the last axis, or that go axis by axis."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from tests.build import Array, integers, ops, rewrite
from tests.match.graphs import assert_never_wrong, codes, dynamic_shapes, ints, parsed

H, W = 3, 4
CONV = "c = Conv<pads=[1,1,1,1]>(x, w16, b16)"
LAST = f"{CONV} l = Transpose<perm=[0,2,3,1]>(c)"
CONSTANTS: dict[str, Array] = {
    "w16": integers(16, 2, 3, 3),
    "b16": integers(16, seed=1),
    "dcr": ints(1, H, W, 2, 2, 4),
    "crd": ints(1, H, W, 4, 2, 2),
    "flat": ints(1, 2 * H, 2 * W, 4),
    "wide": ints(1, H, 2 * W, 8),
    "tall": ints(1, 2 * W, 2 * H, 4),
    "pairs": ints(1, 2, H, 2 * W, 1),
    "row": ints(1, 4, H, 2 * W),
    "image": ints(1, 4, 2 * H, 2 * W),
    "four": ints(4, 4, 4, 4),
    **{f"k{number}": ints(number) for number in range(9)},
    "large": ints(2**31 - 1),
}
DCR = "r = Reshape(l, dcr) t = Transpose<perm=[0,1,3,2,4,5]>(r)"
CRD = "r = Reshape(l, crd) t = Transpose<perm=[0,1,4,2,5,3]>(r)"
PARTS = ", ".join(f"p{number}" for number in range(4))


def stacked() -> str:
    """Each phase cut out of the channels, two columns put side by side, then two rows."""
    body = ""
    for phase in range(4):
        body += f" q{phase} = Slice(c, k{phase}, large, k1, k4) v{phase} = Unsqueeze(q{phase}, k4)"
    for row in range(2):
        body += (
            f" s{row} = Concat<axis=4>(v{2 * row}, v{2 * row + 1}) w{row} = Reshape(s{row}, row)"
            f" u{row} = Unsqueeze(w{row}, k3)"
        )
    return f"{CONV}{body} both = Concat<axis=3>(u0, u1) y = Reshape(both, image)"


REWRITTEN = {
    "phases first": f"{LAST} {DCR} y = Reshape(t, flat)",
    "channels first": f"{LAST} {CRD} y = Reshape(t, flat)",
    "back to the second axis": f"{LAST} {DCR} f = Reshape(t, flat)"
    " y = Transpose<perm=[0,3,1,2]>(f)",
    "one axis after the other": f"{LAST} r = Reshape(l, wide) t = Transpose<perm=[0,2,1,3]>(r)"
    " f = Reshape(t, tall) y = Transpose<perm=[0,2,1,3]>(f)",
    "channel by channel": f"{CONV} {PARTS} = Split<axis=1>(c, four)"
    + "".join(f' d{n} = DepthToSpace<blocksize=2, mode="CRD">(p{n})' for n in range(4))
    + " y = Concat<axis=1>(d0, d1, d2, d3)",
    "phases cut out and stacked": stacked(),
}


@pytest.mark.parametrize("body", REWRITTEN.values(), ids=REWRITTEN)
@pytest.mark.parametrize("shuffle", ["auto", "dcr", "crd", "transpose"])
def test_a_shuffle_behind_a_conv_becomes_one_depth_to_space(body: str, shuffle: str) -> None:
    model = parsed(body, CONSTANTS, f"1,2,{H},{W}")
    (site,) = assert_never_wrong(model, shuffle=shuffle)
    assert (site.pattern, site.status, site.stride) == ("pixel_shuffle", "rewritten", (2, 2))
    done, after = rewrite(model, shuffle=shuffle)
    assert done.sites[0].certificate == "exact"
    if shuffle == "auto":
        ends = {"Transpose": 1} if body.endswith("flat)") or "tall" in body else {}
        assert ops(after) == {"Conv": 1, "DepthToSpace": 1, **ends}


@pytest.mark.parametrize("back", [False, True], ids=["last", "second"])
@pytest.mark.parametrize("perm", ["0,1,3,2,4,5", "0,1,4,2,5,3"], ids=["dcr", "crd"])
def test_sizes_that_are_computed_in_int32(perm: str, back: bool) -> None:
    parts = "k2, k2, k4" if perm == "0,1,3,2,4,5" else "k4, k2, k2"
    body = (
        f"{LAST} s = Shape(l) i = Cast<to=6>(s) j = Cast<to=7>(i) n = Slice(j, k0, k1)"
        " h = Slice(j, k1, k2) v = Slice(j, k2, k3) h2 = Mul(h, k2) v2 = Mul(v, k2)"
        f" split = Concat<axis=0>(n, h, v, {parts}) merged = Concat<axis=0>(n, h2, v2, k4)"
        f" r = Reshape(l, split) t = Transpose<perm=[{perm}]>(r)"
    )
    tail = "f = Reshape(t, merged) y = Transpose<perm=[0,3,1,2]>(f)"
    model = parsed(f"{body} {tail if back else 'y = Reshape(t, merged)'}", CONSTANTS, "n,2,h,v")
    assert codes(assert_never_wrong(model, dynamic_shapes())) == [None]
    assert "Reshape" not in ops(rewrite(model, verify=False)[1])


def tokens(body: str, dims: str, **constants: Array) -> ModelProto:
    weights = {"m": integers(3, 8), "a": integers(8, seed=4)}
    return parsed(body, {**weights, **constants}, dims)


EXPAND = "t = Transpose<perm=[0,1,3,2,4,5]>(r)"
SPLIT = ints(-1, H, W, 2, 2, 2)
KEPT = {
    "behind a MatMul": tokens(
        f"p = MatMul(x, m) r = Reshape(p, split) {EXPAND} y = Reshape(t, merged)",
        f"n,{H * W},3",
        split=SPLIT,
        merged=ints(-1, 4 * H * W, 2),
    ),
    "behind a MatMul and a bias": tokens(
        f"p = MatMul(x, m) q = Add(p, a) r = Reshape(q, split) {EXPAND} y = Reshape(t, merged)",
        f"1,{H * W},3",
        split=SPLIT,
        merged=ints(1, 2 * H, 2 * W, 2),
    ),
    "behind a Gemm of all pixels": tokens(
        f"p = Gemm(x, m, a) r = Reshape(p, split) {EXPAND} y = Reshape(t, merged)",
        f"{2 * H * W},3",
        split=SPLIT,
        merged=ints(-1, 4 * H * W, 2),
    ),
    "to channels first": tokens(
        "r = Reshape(x, split) t = Transpose<perm=[0,5,1,3,2,4]>(r) y = Reshape(t, merged)",
        f"n,{H * W},8",
        split=SPLIT,
        merged=ints(-1, 2, 2 * H, 2 * W),
    ),
    "of an input with channels last": tokens(
        f"r = Reshape(x, split) {EXPAND} y = Reshape(t, merged)",
        f"n,{H},{W},8",
        split=SPLIT,
        merged=ints(-1, 2 * H, 2 * W, 2),
    ),
}


@pytest.mark.parametrize("model", KEPT.values(), ids=KEPT)
def test_a_shuffle_of_channels_that_are_last_is_listed_and_kept(model: ModelProto) -> None:
    done, after = rewrite(model)
    (site,) = done.sites
    assert site.reason is not None
    assert (site.pattern, site.stride) == ("pixel_shuffle", (2, 2))
    assert (site.status, site.reason.code) == ("kept", "already-lowered")
    assert "last axis" in site.reason.text
    assert after == model


OTHERS = {
    "channels exchanged in pairs": (
        "r = Reshape(x, split) t = Transpose<perm=[0,2,1,3,4]>(r) y = Reshape(t, merged)",
        "1,4,4,4",
        ints(1, 2, 2, 4, 4),
        ints(1, 4, 4, 4),
    ),
    "heads taken apart": (
        "r = Reshape(x, split) y = Transpose<perm=[0,2,1,3]>(r)",
        "1,16,8",
        ints(1, 16, 4, 2),
        ints(0),
    ),
    "heads put together": (
        "t = Transpose<perm=[0,2,1,3]>(x) y = Reshape(t, merged)",
        "1,4,16,2",
        ints(0),
        ints(1, 16, 8),
    ),
    "windows taken apart": (
        "r = Reshape(x, split) t = Transpose<perm=[0,1,3,2,4,5]>(r) y = Reshape(t, merged)",
        "1,4,4,3",
        ints(1, 2, 2, 2, 2, 3),
        ints(4, 4, 3),
    ),
    "windows put together": (
        "r = Reshape(x, split) t = Transpose<perm=[0,1,3,2,4,5]>(r) y = Reshape(t, merged)",
        "4,4,3",
        ints(1, 2, 2, 2, 2, 3),
        ints(1, 4, 4, 3),
    ),
    "space to depth": (
        "r = Reshape(x, split) t = Transpose<perm=[0,1,3,2,4,5]>(r) y = Reshape(t, merged)",
        "1,4,4,3",
        ints(1, 2, 2, 2, 2, 3),
        ints(1, 2, 2, 12),
    ),
    "axes put together": (
        "t = Transpose<perm=[0,2,3,1]>(x) y = Reshape(t, merged)",
        "1,4,3,4",
        ints(0),
        ints(1, 12, 4),
    ),
    "parts exchanged": (
        "p, q = Split<axis=1>(x, split) t = Concat<axis=1>(q, p) y = Reshape(t, merged)",
        "1,4,3,4",
        ints(2, 2),
        ints(1, 1, 12, 4),
    ),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_what_is_no_shuffle_is_not_listed(case: tuple[str, str, Array, Array]) -> None:
    body, dims, split, merged = case
    assert assert_never_wrong(parsed(body, {"split": split, "merged": merged}, dims)) == ()


def test_a_transpose_behind_a_depth_to_space_is_no_part_of_it() -> None:
    body = f"{CONV} d = DepthToSpace<blocksize=2>(c) y = Transpose<perm=[0,2,3,1]>(d)"
    (site,) = assert_never_wrong(parsed(body, CONSTANTS, f"1,2,{H},{W}"))
    assert (site.status, site.nodes[-1]) == ("kept", "DepthToSpace_1")


def test_layers_behind_a_shuffle_with_channels_last_are_no_chain() -> None:
    body = f"{REWRITTEN['phases first'].replace('y =', 'f =')} y = Relu(f)"
    for policy in ("cost", "fastest"):
        assert_never_wrong(parsed(body, CONSTANTS, f"1,2,{H},{W}"), policy=policy, budget=1)


def test_a_chain_ends_before_a_shuffle_with_channels_last() -> None:
    body = REWRITTEN["phases first"].replace("Conv<pads=[1,1,1,1]>(x,", "Conv<pads=[1,1,1,1]>(u,")
    up = "u = ConvTranspose<strides=[2,2]>(x, v)"
    constants = {**CONSTANTS, "v": integers(2, 2, 2, 2), "dcr": ints(1, 2 * H, 2 * W, 2, 2, 4)}
    constants["flat"] = ints(1, 4 * H, 4 * W, 4)
    model = parsed(f"{up} {body}", constants, f"1,2,{H},{W}")
    for policy in ("all", "cost"):
        assert len(assert_never_wrong(model, policy=policy)) == 2


def test_values_against_the_definition() -> None:
    """The rewritten model against an array that is rearranged by NumPy."""
    model = parsed(
        REWRITTEN["phases first"].replace(CONV, "c = Identity(x)"), CONSTANTS, f"1,16,{H},{W}"
    )
    _, after = rewrite(model)
    x = np.arange(16 * H * W, dtype=np.float32).reshape(1, 16, H, W)
    from tests.build import run

    expected = x.transpose(0, 2, 3, 1).reshape(1, H, W, 2, 2, 4).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_array_equal(run(after, {"x": x})["y"], expected.reshape(1, 2 * H, 2 * W, 4))
