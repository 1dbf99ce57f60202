"""One model of each kind of upsampling, in which every constant is a tensor of its own.

Half have static sizes, the others compute shapes and indices from dynamic sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from tests.build import Array, integers
from tests.match.graphs import CONV, NEAREST, floats, ints, parsed

H, W = 4, 3
LAST = ints(2**63 - 1)
DOUBLE = floats(1, 1, 2, 2)


def _mask(value: float = 1) -> Array:
    mask = np.zeros((2 * H, 2 * W), np.float32)
    mask[::2, ::2] = value
    return mask


def _grid() -> Array:
    """ScatterND indices of every second row and column, after batch and channel."""
    axes = np.meshgrid([0], range(2), range(0, 2 * H, 2), range(0, 2 * W, 2), indexing="ij")
    return np.stack(axes, -1).astype(np.int64)


def _one_hot() -> Array:
    kernel = np.zeros((2, 1, 2, 2), np.float32)
    kernel[:, :, 0, 0] = 1
    return kernel


def _static(body: str, tail: str = CONV, **constants: Array) -> Callable[[], ModelProto]:
    return lambda: parsed(f"{body} {tail}", constants, f"1,2,{H},{W}")


def _dynamic(body: str, tail: str = CONV, **constants: Array) -> Callable[[], ModelProto]:
    numbers = {f"k{number}": ints(number) for number in range(6)}
    given = {**numbers, "minus": ints(-1), "none": ints(0), "last": LAST, **constants}
    return lambda: parsed(f"{SIZES} {body} {tail}", given, "n,2,h,v")


SIZES = (
    "s = Shape(x) n1 = Slice(s, k0, k1) c1 = Slice(s, k1, k2) h1 = Slice(s, k2, k3)"
    " v1 = Slice(s, k3, k4) h2 = Mul(h1, k2) v2 = Mul(v1, k2)"
)
"""Every size of the input and its double, each in a vector of one."""

SUMMED = "t = Transpose<perm=[0,2,3,1]>(x) l = Add(t, t)"
"""A small image that has its channels last."""
FIRST = "z = Transpose<perm=[0,3,1,2]>(u)"
"""The image before the Conv, from one with its channels last."""

STATIC: dict[str, Callable[[], ModelProto]] = {
    "resize": _static(f"z = Resize<{NEAREST}>(x, , scales)", scales=DOUBLE),
    "resize to sizes": _static(
        'z = Resize<mode="nearest", coordinate_transformation_mode="half_pixel",'
        ' nearest_mode="round_prefer_floor">(x, , , sizes)',
        sizes=ints(1, 2, 2 * H, 2 * W),
    ),
    "resize, layer, pad": _static(
        f"r = Resize<{NEAREST}>(x, , scales) c = Clip(r, low, high) z = Pad(c, pads, fill)",
        scales=DOUBLE,
        low=np.float32(-1),
        high=np.float32(2),
        pads=ints(0, 0, 1, 0, 0, 0, 2, 1),
        fill=np.float32(0),
    ),
    "expand": _static(
        "a = Unsqueeze(x, axes) e = Expand(a, tall) z = Reshape(e, flat)",
        axes=ints(3, 5),
        tall=ints(1, 2, H, 2, W, 2),
        flat=ints(1, 2, 2 * H, 2 * W),
    ),
    "tile": _static(
        "a = Unsqueeze(x, axes) e = Tile(a, counts) z = Reshape(e, flat)",
        axes=ints(3, 5),
        counts=ints(1, 1, 1, 2, 1, 2),
        flat=ints(1, 2, 2 * H, 2 * W),
    ),
    "gather": _static(
        "g = Gather<axis=2>(x, rows) z = Gather<axis=3>(g, columns)",
        rows=np.arange(2 * H) // 2,
        columns=np.arange(2 * W) // 2,
    ),
    "reshape, pad, reshape": _static(
        "a = Reshape(x, tall) p = Pad(a, pads) z = Reshape(p, flat)",
        tall=ints(1, 2, H, 1, W, 1),
        pads=ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1),
        flat=ints(1, 2, 2 * H, 2 * W),
    ),
    "stack": _static(
        "a = Unsqueeze(x, behind) c = Concat<axis=4>(a, zeros) r = Reshape(c, wide)"
        " p = Unsqueeze(r, above) d = Concat<axis=3>(p, rows) z = Reshape(d, flat)",
        behind=ints(4),
        above=ints(3),
        zeros=np.zeros((1, 2, H, W, 1), np.float32),
        rows=np.zeros((1, 2, H, 1, 2 * W), np.float32),
        wide=ints(1, 2, H, 2 * W),
        flat=ints(1, 2, 2 * H, 2 * W),
    ),
    "mask": _static(
        f"r = Resize<{NEAREST}>(x, , scales) z = Mul(r, mask)", scales=DOUBLE, mask=_mask()
    ),
    "where": _static(
        f"r = Resize<{NEAREST}>(x, , scales) z = Where(mask, r, zero)",
        scales=DOUBLE,
        mask=_mask() > 0,
        zero=np.float32(0),
    ),
    "scatter": _static(
        "z = ScatterND(zeros, at, x)", zeros=np.zeros((1, 2, 2 * H, 2 * W), np.float32), at=_grid()
    ),
    "scatter elements": _static(
        "r = ScatterElements<axis=2>(tall, rows, x) z = ScatterElements<axis=3>(wide, columns, r)",
        tall=np.zeros((1, 2, 2 * H, W), np.float32),
        wide=np.zeros((1, 2, 2 * H, 2 * W), np.float32),
        rows=np.broadcast_to(2 * np.arange(H)[:, None], (1, 2, H, W)).copy(),
        columns=np.broadcast_to(2 * np.arange(W), (1, 2, 2 * H, W)).copy(),
    ),
    "one-hot": _static("z = ConvTranspose<strides=[2,2], group=2>(x, k)", k=_one_hot()),
    "folded": _static(
        "f = Reshape(x, tall) p = Pad(f, pads) z = Reshape(p, flat)",
        "y = Conv<pads=[1,1,1,1]>(z, fir)",
        tall=ints(2, 1, H, 1, W, 1),
        pads=ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1),
        flat=ints(2, 1, 2 * H, 2 * W),
        fir=integers(1, 1, 3, 3),
    ),
    "cropped": _static(
        f"r = Resize<{NEAREST}>(x, , scales) z = Slice(r, starts, ends, axes, steps)",
        "y = Conv(z, w, b)",
        scales=DOUBLE,
        starts=ints(1, 0),
        ends=ints(8, 5),
        axes=ints(2, 3),
        steps=ints(1, 1),
    ),
    "masks of rows and columns": _static(
        f"r = Resize<{NEAREST}>(x, , scales) m = Mul(r, mask) z = Mul(m, gain)",
        scales=DOUBLE,
        mask=np.tile(floats(1, 0), H).reshape(2 * H, 1),
        gain=np.tile(floats(1, 0), W),
    ),
    "channels last": _static(
        f"{SUMMED} a = Unsqueeze(l, axes) e = Tile(a, counts) m = Mul(e, factor)"
        f" r = Reshape(m, flat) o = Add(r, offset) u = Clip(o, low, high) {FIRST}",
        axes=ints(2, 4),
        counts=ints(1, 1, 2, 1, 2, 1),
        factor=floats(1, 2),
        flat=ints(1, 2 * H, 2 * W, 2),
        offset=floats(-1, 3).reshape(1, 1, 2),
        low=np.float32(-1),
        high=np.float32(2),
    ),
    "shuffle": _static(
        "c = Conv<pads=[1,1,1,1]>(x, w8) a = Reshape(c, tall) t = Transpose<perm=[0,1,4,2,5,3]>(a)"
        " y = Reshape(t, flat)",
        "",
        w8=integers(8, 2, 3, 3),
        tall=ints(1, 2, 2, 2, H, W),
        flat=ints(1, 2, 2 * H, 2 * W),
    ),
}

DYNAMIC: dict[str, Callable[[], ModelProto]] = {
    "resize": _dynamic(f"z = Resize<{NEAREST}>(x, , scales)", scales=DOUBLE),
    "resize to sizes": _dynamic(
        f"to = Concat<axis=0>(n1, c1, h2, v2) z = Resize<{NEAREST}>(x, , , to)"
    ),
    "resize to bounded sizes": _dynamic(
        "h3 = Max(h2, least) v3 = Max(v1, v2) to = Concat<axis=0>(n1, c1, h3, v3)"
        f" z = Resize<{NEAREST}>(x, , , to)",
        least=ints(1),
    ),
    "resize to rounded sizes": _dynamic(
        "f = Cast<to=1>(h1) g = Mul(f, gain) i = Floor(g) h3 = Cast<to=7>(i)"
        f" to = Concat<axis=0>(n1, c1, h3, v2) z = Resize<{NEAREST}>(x, , , to)",
        gain=floats(2),
    ),
    "resize to divided sizes": _dynamic(
        "h4 = Mul(h1, k4) h3 = Div(h4, part) rest = Mod(h4, part) v3 = Add(v2, rest)"
        f" to = Concat<axis=0>(n1, c1, h3, v3) z = Resize<{NEAREST}>(x, , , to)",
        part=ints(2),
    ),
    "resize to chosen sizes": _dynamic(
        "there = Equal(h1, special) h3 = Where(there, h2, h2) small = Less(v1, bound)"
        " v3 = Where(small, v2, v2) gap = Sub(v3, v2) h4 = Add(h3, gap)"
        f" to = Concat<axis=0>(n1, c1, h4, v3) z = Resize<{NEAREST}>(x, , , to)",
        special=ints(-5),
        bound=ints(0),
    ),
    "expand": _dynamic(
        "a = Unsqueeze(x, axes) tall = Concat<axis=0>(n1, c1, h1, k2, v1, k2) e = Expand(a, tall)"
        " flat = Concat<axis=0>(n1, c1, h2, v2) z = Reshape(e, flat)",
        axes=ints(3, 5),
    ),
    "tile": _dynamic(
        "a = Unsqueeze(x, axes) e = Tile(a, counts) flat = Concat<axis=0>(n1, c1, h2, minus)"
        " z = Reshape(e, flat)",
        axes=ints(3, 5),
        counts=ints(1, 1, 1, 2, 1, 2),
    ),
    "reshape, pad, reshape": _dynamic(
        "tall = Concat<axis=0>(n1, c1, h1, k1, v1, k1) a = Reshape(x, tall) p = Pad(a, pads)"
        " flat = Concat<axis=0>(n1, c1, h2, v2) z = Reshape(p, flat)",
        pads=ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1),
    ),
    "gather": _dynamic(
        "hs = Squeeze(h2) i = Range(zero, hs, one) r = Div(i, two) g = Gather<axis=2>(x, r)"
        " vs = Squeeze(v2) j = Range(zero, vs, one) q = Div(j, two) z = Gather<axis=3>(g, q)",
        zero=np.int64(0),
        one=np.int64(1),
        two=np.int64(2),
    ),
    "assign": _dynamic(
        "shape = Concat<axis=0>(v2, h2, n1, c1) zeros = ConstantOfShape(shape)"
        " hs = Squeeze(h2) vs = Squeeze(v2) i = Range(zero, hs, two) j = Range(zero, vs, two)"
        " rows = Unsqueeze(i, k0) columns = Unsqueeze(j, k1) both = Concat<axis=0>(v1, h1)"
        " i2 = Expand(rows, both) j2 = Expand(columns, both) i3 = Unsqueeze(i2, minus)"
        " j3 = Unsqueeze(j2, minus) at = Concat<axis=2>(j3, i3)"
        " t = Transpose<perm=[3,2,0,1]>(x) u = ScatterND(zeros, at, t)"
        " z = Transpose<perm=[2,3,1,0]>(u)",
        zero=np.int64(0),
        two=np.int64(2),
    ),
    "computed mask": _dynamic(
        f"r = Resize<{NEAREST}>(x, , scales) vs = Squeeze(v2) j = Range(zero, vs, one)"
        " rest = Mod(j, two) even = Equal(rest, zero) m = Cast<to=1>(even) hs = Squeeze(h2)"
        " i = Range(zero, hs, one) other = Mod(i, two) level = Equal(other, zero)"
        " l = Cast<to=1>(level) l2 = Unsqueeze(l, k1) mask = Mul(l2, m) z = Mul(r, mask)",
        scales=DOUBLE,
        zero=np.int64(0),
        one=np.int64(1),
        two=np.int64(2),
    ),
    "cropped": _dynamic(
        f"r = Resize<{NEAREST}>(x, , scales) h3 = Sub(h2, k1) z = Slice(r, from, h3, at)",
        "y = Conv<pads=[0,1,0,1]>(z, w, b)",
        scales=DOUBLE,
        **{"from": ints(1), "at": ints(2)},
    ),
    "cut to size": _dynamic(
        f"r = Resize<{NEAREST}>(x, , scales) z = Slice(r, starts, ends, axes)",
        scales=DOUBLE,
        starts=ints(0, 0),
        ends=ints(2**63 - 1, 2**31 - 1),
        axes=ints(2, 3),
    ),
    "channels last": _dynamic(
        f"{SUMMED} a = Unsqueeze(l, axes) e = Tile(a, counts)"
        " flat = Concat<axis=0>(n1, h2, v2, c1) r = Reshape(e, flat) m = Mul(r, factor)"
        f" u = Add(offset, m) {FIRST}",
        axes=ints(2, 4),
        counts=ints(1, 1, 2, 1, 2, 1),
        factor=floats(1, 2),
        offset=floats(-1, 3),
    ),
    "channels last, a resize to sizes": _dynamic(
        f"{SUMMED} to = Concat<axis=0>(n1, h2, v2, c1) u = Resize<{NEAREST}>(l, , , to) {FIRST}",
    ),
    "shuffle": _dynamic(
        "c = Conv<pads=[1,1,1,1]>(x, w8) tall = Concat<axis=0>(n1, k2, k2, k2, h1, v1)"
        " a = Reshape(c, tall) t = Transpose<perm=[0,3,4,1,5,2]>(a)"
        " flat = Concat<axis=0>(n1, k2, h2, v2) y = Reshape(t, flat)",
        "",
        w8=integers(8, 2, 3, 3),
    ),
    "shuffle to a computed shape": _dynamic(
        "c = Conv<pads=[1,1,1,1]>(x, w8) cs = Shape(c) depth = Slice(cs, k1, k2)"
        " left = Div(depth, k4) tall = Concat<axis=0>(n1, left, k2, k2, h1, minus)"
        " a = Reshape(c, tall) t = Transpose<perm=[0,1,4,2,5,3]>(a)"
        " flat = Concat<axis=0>(none, left, h2, minus) y = Reshape(t, flat)",
        "",
        w8=integers(8, 2, 3, 3),
    ),
}

PATTERNS = {("static", name): made for name, made in STATIC.items()} | {
    ("dynamic", name): made for name, made in DYNAMIC.items()
}

__all__ = ["DYNAMIC", "PATTERNS", "STATIC"]
