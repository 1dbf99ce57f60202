"""Zero insertion by Pad or Concat between two Reshapes, also as a depth to space of zeros."""

from __future__ import annotations

import numpy as np

from tests.spellings import oracle
from tests.spellings.handmade.graph import conv, ints
from tests.spellings.handmade.spread import C, H, N, W, graph

_SIX = (0, 0, 0, 0, 0, 0)


GRAPHS = (
    graph(
        "pad2_reshape",
        9,
        "t = Reshape(x, six) p = Pad<pads=[0,0,0,0,0,0,0,0,0,1,0,1]>(t) z = Reshape(p, size)",
        constants={"six": ints(N, C, H, 1, W, 1), "size": ints(N, C, 2 * H, 2 * W)},
    ),
    graph(
        "pad11_reshape",
        11,
        "t = Reshape(x, six) p = Pad(t, pads) z = Reshape(p, size)",
        constants={
            "six": ints(0, 0, H, 1, W, 1),
            "pads": ints(*_SIX, 0, 0, 0, 1, 0, 1),
            "size": ints(N, -1, 2 * H, 2 * W),
        },
    ),
    graph(
        "pad11_zeros_in_front",
        11,
        "t = Reshape(x, six) p = Pad(t, pads) z = Reshape(p, size)",
        constants={
            "six": ints(0, 0, H, 1, W, 1),
            "pads": ints(0, 0, 0, 1, 0, 1, *_SIX),
            "size": ints(N, -1, 2 * H, 2 * W),
        },
        oracle=lambda x: conv(oracle.insert_zeros(x, first=1)),
    ),
    graph(
        "pad11_unsqueeze11",
        11,
        "t = Unsqueeze<axes=[3,5]>(x) p = Pad(t, pads) z = Reshape(p, size)",
        constants={"pads": ints(*_SIX, 0, 0, 0, 1, 0, 1), "size": ints(0, 0, 2 * H, 2 * W)},
    ),
    graph(
        "pad18_axes",
        18,
        "t = Unsqueeze(x, a) p = Pad(t, pads, zero, a) z = Reshape(p, size)",
        constants={
            "a": ints(3, 5),
            "pads": ints(0, 0, 1, 1),
            "zero": np.array(0, np.float32),
            "size": ints(0, 0, 2 * H, 2 * W),
        },
    ),
    graph(
        "pad13_pads_computed",
        13,
        "t = Unsqueeze(x, a) q = Concat<axis=0>(none, ends) "
        "pads = Reshape(q, flat) p = Pad(t, pads) z = Reshape(p, size)",
        constants={
            "a": ints(3, 5),
            "none": np.zeros((1, 6), np.int64),
            "ends": np.array([[0, 0, 0, 1, 0, 1]], np.int64),
            "flat": ints(-1),
            "size": ints(0, 0, 2 * H, 2 * W),
        },
    ),
    graph(
        "pad13_reshape_dynamic",
        13,
        "s = Shape(x) n = Gather(s, k0) h = Gather(s, k2) v = Gather(s, k3) "
        "one = Constant<value=int64[1] {1}>() c2 = Constant<value=int64[1] {2}>() "
        "six = Concat<axis=0>(n, c2, h, one, v, one) t = Reshape(x, six) "
        "p = Pad(t, pads) h2 = Mul(h, c2) v2 = Mul(v, c2) "
        "size = Concat<axis=0>(n, c2, h2, v2) z = Reshape(p, size)",
        constants={
            "k0": ints(0),
            "k2": ints(2),
            "k3": ints(3),
            "pads": ints(*_SIX, 0, 0, 0, 1, 0, 1),
        },
        dims="N,2,H,W",
    ),
    graph(
        "pad13_wrong_axis",
        13,
        "t = Reshape(x, six) p = Pad(t, pads) z = Reshape(p, size)",
        constants={
            "six": ints(N, C, H, 1, W, 1),
            "pads": ints(*_SIX, 0, 0, H, 0, 0, 1),
            "size": ints(N, C, 2 * H, 2 * W),
        },
        stride=None,
        expect=None,
        oracle=lambda x: conv(
            np.pad(x[..., None], ((0, 0), (0, 0), (0, H), (0, 0), (0, 1))).reshape(
                N, C, 2 * H, 2 * W
            )
        ),
    ),
    graph(
        "concat_constant_zeros",
        13,
        "t = Unsqueeze(x, a4) p = Concat<axis=4>(t, zc) r = Reshape(p, rows) "
        "q = Unsqueeze(r, a3) u = Concat<axis=3>(q, zr) z = Reshape(u, size)",
        constants={
            "a4": ints(4),
            "a3": ints(3),
            "zc": np.zeros((N, C, H, W, 1), np.float32),
            "zr": np.zeros((N, C, H, 1, 2 * W), np.float32),
            "rows": ints(N, C, H, 2 * W),
            "size": ints(N, C, 2 * H, 2 * W),
        },
    ),
    graph(
        "concat_times_zero",
        13,
        "n = Mul(x, zero) d = Concat<axis=1>(x, n, n, n) z = DepthToSpace<blocksize=2>(d)",
        constants={"zero": np.array(0, np.float32)},
        expect=None,
    ),
    graph(
        "depth_to_space_of_zeros",
        11,
        'p = Pad(x, pads) z = DepthToSpace<blocksize=2, mode="DCR">(p)',
        constants={"pads": ints(0, 0, 0, 0, 0, 6, 0, 0)},
    ),
    graph(
        "pad_rows_then_columns",
        13,
        "t = Reshape(x, rows) p = Pad(t, prows) q = Reshape(p, tall) "
        "u = Pad(q, pcols) z = Reshape(u, size)",
        constants={
            "rows": ints(N, C, H, W),
            "prows": ints(0, 0, 0, 0, 0, 0, 0, W),
            "tall": ints(N, C, 2 * H, W, 1),
            "pcols": ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
            "size": ints(N, C, 2 * H, 2 * W),
        },
    ),
)
