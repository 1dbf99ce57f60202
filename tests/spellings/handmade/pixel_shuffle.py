"""DepthToSpace of every opset, Reshape - Transpose - Reshape as older exporters wrote it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.spellings import oracle
from tests.spellings.corpus import Array, Shape
from tests.spellings.handmade.graph import Graph, ints

_WIDE: Shape = (2, 8, 3, 2)
_KERNEL: Shape = (8, 2, 3, 3)


def _bare(x: Array, stride: Shape = (2, 2), order: str = "CRD") -> Array:
    return oracle.shuffle(x, stride, order)


def _behind_conv(x: Array, order: str) -> Array:
    return oracle.shuffle(oracle.conv(x, oracle.weight(_KERNEL), oracle.bias(8)), (2, 2), order)


def _graph(name: str, opset: int, body: str, **more: Any) -> Graph:
    made = {"oracle": _bare, "shape": _WIDE, **more}
    return Graph(name, "pixel_shuffle", opset, body, **made)


def _rtr(perm: str, x: str = "x") -> str:
    """Reshape - Transpose - Reshape from ``x`` to ``y``."""
    return f"t = Reshape({x}, split) u = Transpose<perm=[{perm}]>(t) y = Reshape(u, merged)"


_CRD, _DCR = "0,1,4,2,5,3", "0,3,4,1,5,2"
_SPLIT = ints(2, 2, 2, 2, 3, 2)
_MERGED = ints(2, 2, 6, 4)
_CONV = "c = Conv<pads=[1,1,1,1]>(x, w, b)"
_EINOPS = (
    "s = Shape(x) n = Gather<axis=0>(s, i0) c = Gather<axis=0>(s, i1) "
    "h = Gather<axis=0>(s, i2)"
    " v = Gather<axis=0>(s, i3) q = Div(c, four) n1 = Unsqueeze<axes=[0]>(n)"
    "q1 = Unsqueeze<axes=[0]>(q) h1 = Unsqueeze<axes=[0]>(h) "
    "v1 = Unsqueeze<axes=[0]>(v)"
    " split = Concat<axis=0>(n1, q1, two1, two1, h1, v1) t = Reshape(x, split)"
    f" u = Transpose<perm=[{_CRD}]>(t) h2 = Mul(h, two) v2 = Mul(v, two)"
    " h3 = Unsqueeze<axes=[0]>(h2) v3 = Unsqueeze<axes=[0]>(v2)"
    " merged = Concat<axis=0>(n1, q1, h3, v3) y = Reshape(u, merged)"
)
_EINOPS_CONSTANTS = {
    **{f"i{axis}": np.array(axis) for axis in range(4)},
    "four": np.array(4),
    "two": np.array(2),
    "two1": ints(2),
}

GRAPHS = (
    # DepthToSpace
    _graph(
        "depth_to_space1",
        1,
        "y = DepthToSpace<blocksize=2>(x)",
        expect="kept",
        oracle=partial(_bare, order="DCR"),
    ),
    _graph(
        "depth_to_space11_default",
        11,
        "y = DepthToSpace<blocksize=2>(x)",
        expect="kept",
        oracle=partial(_bare, order="DCR"),
    ),
    _graph(
        "depth_to_space11_crd", 11, 'y = DepthToSpace<blocksize=2, mode="CRD">(x)', expect="kept"
    ),
    _graph(
        "depth_to_space13_conv",
        13,
        f'{_CONV} y = DepthToSpace<blocksize=2, mode="DCR">(c)',
        expect="kept",
        shape=(2, 2, 3, 2),
        kernel=_KERNEL,
        oracle=partial(_behind_conv, order="DCR"),
    ),
    _graph(
        "depth_to_space7_conv",
        7,
        f"{_CONV} y = DepthToSpace<blocksize=2>(c)",
        expect="kept",
        shape=(2, 2, 3, 2),
        kernel=_KERNEL,
        oracle=partial(_behind_conv, order="DCR"),
    ),
    _graph(
        "depth_to_space13_1",
        13,
        "y = DepthToSpace<blocksize=1>(x)",
        stride=None,
        expect=None,
        oracle=lambda x: x,
    ),
    _graph(
        "space_to_depth",
        13,
        "y = SpaceToDepth<blocksize=2>(x)",
        shape=(2, 2, 4, 6),
        stride=None,
        expect=None,
        oracle=lambda x: (
            x.reshape(2, 2, 2, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(2, 8, 2, 3)
        ),
    ),
    _graph(
        "depth_to_space_nhwc",
        13,
        "t = Transpose<perm=[0,3,1,2]>(x) d = DepthToSpace<blocksize=2>(t) "
        "y = Transpose<perm=[0,2,3,1]>(d)",
        shape=(2, 3, 2, 8),
        expect="kept",
        oracle=lambda x: _bare(x.transpose(0, 3, 1, 2), order="DCR").transpose(0, 2, 3, 1),
    ),
    # Reshape - Transpose - Reshape
    _graph(
        "reshape9_constants",
        9,
        "split = Constant<value=int64[6] {2,2,2,2,3,2}>() "
        f"merged = Constant<value=int64[4] {{2,2,6,4}}>() {_rtr(_CRD)}",
        expect="kept",  # DepthToSpace has no CRD before opset 11
    ),
    _graph(
        "reshape1_attributes",
        1,
        f"t = Reshape<shape=[2,2,2,2,3,2]>(x) u = Transpose<perm=[{_CRD}]>(t) "
        "y = Reshape<shape=[2,2,6,4]>(u)",
        expect=None,
    ),
    _graph("reshape11_crd", 11, _rtr(_CRD), constants={"split": _SPLIT, "merged": _MERGED}),
    _graph(
        "reshape11_dcr",
        11,
        _rtr(_DCR),
        constants={"split": ints(2, 2, 2, 2, 3, 2), "merged": _MERGED},
        oracle=partial(_bare, order="DCR"),
    ),
    _graph(
        "reshape13_zero_and_minus_one",
        13,
        _rtr(_CRD),
        constants={"split": ints(0, -1, 2, 2, 3, 2), "merged": ints(0, -1, 6, 4)},
    ),
    _graph(
        "reshape14_allowzero",
        14,
        _rtr(_CRD).replace("Reshape(", "Reshape<allowzero=1>("),
        constants={"split": _SPLIT, "merged": _MERGED},
    ),
    _graph(
        "reshape13_batch_dynamic",
        13,
        _rtr(_CRD),
        constants={"split": ints(-1, 2, 2, 2, 3, 2), "merged": ints(-1, 2, 6, 4)},
        dims="N,8,3,2",
    ),
    _graph(
        "reshape13_identities",
        13,
        "a = Identity(x) t = Reshape(a, split) e = Identity(t) "
        "u = Transpose<perm=[0,1,4,2,5,3]>(e) f = Identity(u) "
        "y = Reshape(f, merged)",
        constants={"split": _SPLIT, "merged": _MERGED},
    ),
    _graph(
        "reshape13_two_transposes",
        13,
        "t = Reshape(x, split) u = Transpose<perm=[0,1,4,3,2,5]>(t) "
        "v = Transpose<perm=[0,1,2,4,5,3]>(u) y = Reshape(v, merged)",
        constants={"split": _SPLIT, "merged": _MERGED},
    ),
    _graph(
        "reshape13_two_steps",
        13,
        "t = Reshape(x, s5) y0 = Reshape(t, split) "
        "u = Transpose<perm=[0,1,4,2,5,3]>(y0) v = Reshape(u, m5) "
        "y = Reshape(v, merged)",
        constants={
            "s5": ints(2, 4, 2, 3, 2),
            "split": _SPLIT,
            "m5": ints(2, 2, 3, 2, 4),
            "merged": _MERGED,
        },
    ),
    _graph(
        "reshape11_conv",
        11,
        f"{_CONV} {_rtr(_CRD, 'c')}",
        shape=(2, 2, 3, 2),
        kernel=_KERNEL,
        constants={"split": _SPLIT, "merged": _MERGED},
        oracle=partial(_behind_conv, order="CRD"),
    ),
    _graph("einops_dynamic11", 11, _EINOPS, constants=_EINOPS_CONSTANTS, dims="N,8,H,W"),
    _graph(
        "reshape13_crossed_sizes",
        13,
        _rtr(_CRD),
        constants={"split": ints(2, 2, 2, 2, 2, 3), "merged": ints(2, 2, 4, 6)},
        stride=None,
        expect=None,
        oracle=lambda x: _bare(x.reshape(2, 8, 2, 3)),
    ),
    _graph(
        "reshape13_merged_otherwise",
        13,
        _rtr(_CRD),
        constants={"split": _SPLIT, "merged": ints(2, 2, 4, 6)},
        stride=None,
        expect=None,
        oracle=lambda x: _bare(x).reshape(2, 2, 4, 6),
    ),
    _graph(
        "reshape13_perm_default",
        13,
        "t = Reshape(x, split) u = Transpose(t) y = Reshape(u, merged)",
        constants={"split": _SPLIT, "merged": _MERGED},
        stride=None,
        expect=None,
        oracle=lambda x: x.reshape(2, 2, 2, 2, 3, 2).transpose().reshape(2, 2, 6, 4),
    ),
    _graph(
        "reshape13_transpose_shared",
        13,
        "t = Reshape(x, split) u = Transpose<perm=[0,1,4,2,5,3]>(t) "
        "v = Reshape(u, merged) f = Reshape(u, merged) y = Sub(v, f)",
        constants={"split": _SPLIT, "merged": _MERGED},
        stride=None,
        expect=None,
        oracle=lambda x: _bare(x) * 0,
    ),
    _graph(
        "gather_permutes_phases",
        13,
        f"c = Gather<axis=1>(x, order) {_rtr(_CRD, 'c')}",
        constants={"order": ints(0, 2, 1, 3, 4, 6, 5, 7), "split": _SPLIT, "merged": _MERGED},
        oracle=lambda x: _bare(x[:, [0, 2, 1, 3, 4, 6, 5, 7]]),
    ),
    # no DepthToSpace
    _graph(
        "reshape13_1d",
        13,
        _rtr("0,1,3,2"),
        shape=(2, 6, 5),
        stride=(3,),
        expect="kept",
        constants={"split": ints(2, 2, 3, 5), "merged": ints(2, 2, 15)},
        oracle=partial(_bare, stride=(3,)),
    ),
    _graph(
        "reshape13_2x3",
        13,
        _rtr(_CRD),
        shape=(2, 12, 3, 2),
        stride=(2, 3),
        expect="kept",
        constants={"split": ints(2, 2, 2, 3, 3, 2), "merged": ints(2, 2, 6, 6)},
        oracle=partial(_bare, stride=(2, 3)),
    ),
    _graph(
        "reshape13_3d",
        13,
        _rtr("0,1,5,2,6,3,7,4"),
        shape=(1, 8, 2, 3, 2),
        stride=(2, 2, 2),
        expect="kept",
        constants={"split": ints(1, 1, 2, 2, 2, 2, 3, 2), "merged": ints(1, 1, 4, 6, 4)},
        oracle=partial(_bare, stride=(2, 2, 2)),
    ),
    _graph(
        "col2im18",
        18,
        "t = Reshape(x, flat) y = Col2Im<strides=[2,2]>(t, size, block)",
        constants={"flat": ints(2, 8, 6), "size": ints(6, 4), "block": ints(2, 2)},
        expect=None,
    ),
)
