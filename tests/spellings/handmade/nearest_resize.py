"""Upsample-7 and -9, Resize-10 to -19 with every coordinate mode, shapes computed the old way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.spellings import oracle
from tests.spellings.corpus import Array
from tests.spellings.handmade.graph import IMAGE, NEAREST, Graph, conv, floats, ints

_CONV = "y = Conv<pads=[1,1,1,1]>(r, w, b)"


def _upsampled(x: Array, stride: tuple[int, ...] = (2, 2)) -> Array:
    return conv(oracle.copies(x, stride))


def _graph(name: str, opset: int, body: str, **more: Any) -> Graph:
    made = {"oracle": _upsampled, **more}
    return Graph(name, "nearest_resize", opset, f"{body} {_CONV}", **made)


_SHAPE_CHAIN = (
    "s = Shape(x) h = Gather<axis=0>(s, i2) v = Gather<axis=0>(s, i3)"
    " h2 = Mul(h, two) v2 = Mul(v, two)"
)
_CHAIN = {"i2": np.array(2), "i3": np.array(3), "two": np.array(2)}
_DYNAMIC = "N,2,H,W"

_OLDER = (
    _graph("upsample7", 7, 'r = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(x)'),
    _graph(
        "upsample7_x3x1",
        7,
        'r = Upsample<mode="nearest", scales=[1.0,1.0,3.0,1.0]>(x)',
        stride=(3, 1),
        oracle=partial(_upsampled, stride=(3, 1)),
    ),
    _graph(
        "upsample7_fraction",
        7,
        'r = Upsample<mode="nearest", scales=[1.0,1.0,1.5,1.5]>(x)',
        stride=None,
        expect="non-integer-scale",
        oracle=lambda x: conv(oracle.take(x, [[0, 0, 1, 2], [0, 0, 1, 2, 2, 3]])),
    ),
    _graph(
        "upsample9",
        9,
        'r = Upsample<mode="nearest">(x, s)',
        constants={"s": floats(1, 1, 2, 2)},
    ),
    _graph(
        "upsample9_constant",
        9,
        "s = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() r = Upsample(x, s)",
    ),
    _graph(
        "upsample9_dynamic",
        9,
        'r = Upsample<mode="nearest">(x, s)',
        constants={"s": floats(1, 1, 2, 2)},
        dims=_DYNAMIC,
    ),
    _graph(
        "upsample9_scales_from_shapes",
        9,
        f"{_SHAPE_CHAIN} hf = Cast<to=1>(h) hf2 = Cast<to=1>(h2) vf = Cast<to=1>(v)"
        " vf2 = Cast<to=1>(v2) sh = Div(hf2, hf) sv = Div(vf2, vf)"
        " sh1 = Unsqueeze<axes=[0]>(sh) sv1 = Unsqueeze<axes=[0]>(sv)"
        " sc = Concat<axis=0>(one, one, sh1, sv1) r = Upsample(x, sc)",
        constants={**_CHAIN, "one": floats(1)},
        dims=_DYNAMIC,
    ),
    _graph("resize10", 10, 'r = Resize<mode="nearest">(x, s)', constants={"s": floats(1, 1, 2, 2)}),
    _graph(
        "resize10_scales_overridable",
        10,
        'r = Resize<mode="nearest">(x, s)',
        constants={"s": floats(1, 1, 2, 2)},
        overridable=("s",),
        expect="overridable-initializer",
    ),
    _graph(
        "resize10_down",
        10,
        'r = Resize<mode="nearest">(x, s)',
        constants={"s": floats(1, 1, 0.5, 0.5)},
        shape=(2, 2, 4, 6),
        stride=None,
        expect=None,
        oracle=lambda x: conv(x[..., ::2, ::2]),
    ),
)

_FORMS = (
    _graph(
        "resize11_empty_roi",
        11,
        f"roi = Constant<value=float[0] {{}}>() r = Resize<{NEAREST}>(x, roi, s)",
        constants={"s": floats(1, 1, 2, 2)},
    ),
    _graph(
        "resize11_no_attributes",
        11,
        "r = Resize(x, roi, s)",
        constants={"roi": floats(), "s": floats(1, 1, 2, 2)},
    ),
    _graph(
        "resize11_sizes",
        11,
        f"r = Resize<{NEAREST}>(x, roi, roi, sz)",
        constants={"roi": floats(), "sz": ints(2, 2, 6, 8)},
    ),
    _graph(
        "resize11_sizes_from_shapes",
        11,
        f"{_SHAPE_CHAIN} h1 = Unsqueeze<axes=[0]>(h2) v1 = Unsqueeze<axes=[0]>(v2)"
        " head = Slice(s, zero1, two1, zero1) sz = Concat<axis=0>(head, h1, v1)"
        f" r = Resize<{NEAREST}>(x, roi, roi, sz)",
        constants={**_CHAIN, "roi": floats(), "zero1": ints(0), "two1": ints(2)},
        dims=_DYNAMIC,
    ),
    _graph(
        "resize11_floor_of_float_sizes",
        11,
        "s = Shape(x) tail = Slice(s, two1, four1) f = Cast<to=1>(tail) "
        "g = Mul(f, twof)"
        " fl = Floor(g) t2 = Cast<to=7>(fl) head = Slice(s, zero1, two1)"
        f" sz = Concat<axis=0>(head, t2) r = Resize<{NEAREST}>(x, roi, roi, sz)",
        constants={
            "roi": floats(),
            "zero1": ints(0),
            "two1": ints(2),
            "four1": ints(4),
            "twof": floats(2, 2),
        },
        dims=_DYNAMIC,
    ),
    _graph(
        "resize13_swapped_sizes",
        13,
        f"{_SHAPE_CHAIN} h1 = Unsqueeze(h2, zero1) v1 = Unsqueeze(v2, zero1)"
        " head = Slice(s, zero1, two1, zero1) sz = Concat<axis=0>(head, v1, h1)"
        f" r = Resize<{NEAREST}>(x, , , sz)",
        constants={**_CHAIN, "zero1": ints(0), "two1": ints(2)},
        dims=_DYNAMIC,
        stride=None,
        expect=None,
        oracle=lambda x: conv(
            oracle.take(
                x,
                [
                    oracle.index_map("asymmetric", "floor", x.shape[2], 2 * x.shape[3]),
                    oracle.index_map("asymmetric", "floor", x.shape[3], 2 * x.shape[2]),
                ],
            )
        ),
    ),
    _graph(
        "resize13_channels_too",
        13,
        f"r = Resize<{NEAREST}>(x, , s)",
        constants={"s": floats(1, 2, 2, 2)},
        kernel=(3, 4, 3, 3),
        stride=None,
        expect=None,
        oracle=lambda x: oracle.conv(
            oracle.copies(x, (2, 2)).repeat(2, axis=1), oracle.weight((3, 4, 3, 3)), oracle.bias(3)
        ),
    ),
    _graph(
        "resize13_no_roi",
        13,
        f"r = Resize<{NEAREST}>(x, , s)",
        constants={"s": floats(1, 1, 2, 2)},
    ),
    _graph(
        "resize13_scale_1",
        13,
        f"r = Resize<{NEAREST}>(x, , s)",
        constants={"s": floats(1, 1, 1, 1)},
        stride=None,
        expect=None,
        oracle=conv,
    ),
    _graph(
        "resize13_linear",
        13,
        'r = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, , s)',
        constants={"s": floats(1, 1, 1, 2)},
        stride=None,
        expect=None,
        oracle=lambda x: conv(_between(x)),
    ),
    _graph(
        "resize18_axes",
        18,
        f"r = Resize<{NEAREST}, axes=[2,3]>(x, , s)",
        constants={"s": floats(2, 2)},
    ),
    _graph(
        "resize18_axes_swapped",
        18,
        f"r = Resize<{NEAREST}, axes=[3,2]>(x, , s)",
        constants={"s": floats(3, 2)},
        stride=(2, 3),
        oracle=partial(_upsampled, stride=(2, 3)),
    ),
    _graph(
        "resize18_negative_axes",
        18,
        f"r = Resize<{NEAREST}, axes=[-2,-1]>(x, , , s)",
        constants={"s": ints(6, 8)},
    ),
    _graph(
        "resize18_not_larger",
        18,
        f'r = Resize<{NEAREST}, axes=[2,3], keep_aspect_ratio_policy="not_larger">(x, , , s)',
        constants={"s": ints(6, 100)},
    ),
    _graph(
        "resize13_identities",
        13,
        f"x1 = Identity(x) s1 = Identity(s) q = Resize<{NEAREST}>(x1, , s1) r = Identity(q)",
        constants={"s": floats(1, 1, 2, 2)},
    ),
    _graph(
        "resize13_twice",
        13,
        f"q = Resize<{NEAREST}>(x, , s) r = Resize<{NEAREST}>(q, , s)",
        constants={"s": floats(1, 1, 2, 2)},
        stride=(4, 4),
        oracle=partial(_upsampled, stride=(4, 4)),
    ),
    _graph(
        "resize10_pad2",
        10,
        'q = Resize<mode="nearest">(x, s) r = Pad<pads=[0,0,1,0,0,0,0,1]>(q)',
        constants={"s": floats(1, 1, 2, 2)},
        oracle=lambda x: conv(np.pad(oracle.copies(x, (2, 2)), ((0, 0), (0, 0), (1, 0), (0, 1)))),
    ),
    _graph(
        "resize13_pad13_value",
        13,
        f"q = Resize<{NEAREST}>(x, , s) r = Pad(q, p, zero)",
        constants={
            "s": floats(1, 1, 2, 2),
            "p": ints(0, 0, 1, 2, 0, 0, 0, 1),
            "zero": np.array(0, np.float32),
        },
        oracle=lambda x: conv(np.pad(oracle.copies(x, (2, 2)), ((0, 0), (0, 0), (1, 0), (2, 1)))),
    ),
    _graph(
        "resize13_pad_channels",
        13,
        f"q = Resize<{NEAREST}>(x, , s) r = Pad(q, p)",
        constants={"s": floats(1, 1, 2, 2), "p": ints(0, 0, 0, 0, 0, 1, 0, 0)},
        kernel=(3, 3, 3, 3),
        stride=None,
        expect=None,
        oracle=lambda x: oracle.conv(
            np.pad(oracle.copies(x, (2, 2)), ((0, 0), (0, 1), (0, 0), (0, 0))),
            oracle.weight((3, 3, 3, 3)),
            oracle.bias(3),
        ),
    ),
    _graph(
        "resize13_pad_crops",
        13,
        f"q = Resize<{NEAREST}>(x, , s) r = Pad(q, p)",
        constants={"s": floats(1, 1, 2, 2), "p": ints(0, 0, -1, 0, 0, 0, 0, -1)},
        expect=None,
        oracle=lambda x: conv(oracle.copies(x, (2, 2))[:, :, 1:, :-1]),
    ),
    _graph(
        "resize13_pad_edge",
        13,
        f'q = Resize<{NEAREST}>(x, , s) r = Pad<mode="edge">(q, p)',
        constants={"s": floats(1, 1, 2, 2), "p": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        expect="non-zero-padding",
        oracle=lambda x: conv(
            np.pad(oracle.copies(x, (2, 2)), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        ),
    ),
)


def _between(x: Array) -> Array:
    """Linear upsampling of the last axis by 2, asymmetric: means between neighbours."""
    following = np.concatenate((x[..., 1:], x[..., -1:]), axis=-1)
    pairs: Array = np.stack((x, (x + following) / 2), axis=-1)
    return pairs.reshape(*x.shape[:-1], -1)


_MODES = {
    11: ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"),
    13: ("half_pixel", "asymmetric"),
    18: ("pytorch_half_pixel", "align_corners"),
    19: ("half_pixel_symmetric",),
}
_ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def _mapped(mode: str, rounding: str, scale: int, x: Array) -> Array:
    return conv(
        oracle.take(
            x, [oracle.index_map(mode, rounding, size, scale * size) for size in x.shape[2:]]
        )
    )


def _index_maps() -> Iterator[Graph]:
    """Every coordinate mode with every rounding: rewritten where each index is ``o // scale``."""
    for opset, modes in _MODES.items():
        for mode in modes:
            for rounding in _ROUNDINGS:
                for scale in (2, 3):
                    whole = all(
                        oracle.index_map(mode, rounding, size, scale * size)
                        == [o // scale for o in range(scale * size)]
                        for size in IMAGE[2:]
                    )
                    attributes = (
                        f'mode="nearest", coordinate_transformation_mode="{mode}",'
                        f' nearest_mode="{rounding}"'
                    )
                    yield _graph(
                        f"resize{opset}_{mode}_{rounding}_x{scale}",
                        opset,
                        f"r = Resize<{attributes}>(x, roi, s)",
                        constants={"roi": floats(), "s": floats(1, 1, scale, scale)},
                        stride=(scale, scale) if whole else None,
                        expect="rewritten" if whole else None,
                        oracle=partial(_mapped, mode, rounding, scale),
                    )


GRAPHS = (*_OLDER, *_FORMS, *_index_maps())
