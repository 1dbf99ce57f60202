"""Zero insertion by a ConvTranspose with a one-hot kernel; Pad and Slice before and behind."""

from __future__ import annotations

import numpy as np

from tests.spellings import oracle
from tests.spellings.corpus import Array
from tests.spellings.handmade.graph import NEAREST, conv, floats, ints
from tests.spellings.handmade.spread import C, H, N, W, graph, mask, one_hot, spread


def _padded(x: Array, before: bool) -> Array:
    edges = ((0, 0), (0, 0), (0, 1), (1, 0))
    if before:
        return conv(oracle.insert_zeros(np.pad(x, edges)))
    return conv(np.pad(oracle.insert_zeros(x), edges))


def _transposed(attributes: str = "") -> str:
    return f"z = ConvTranspose<strides=[2,2], group=2{attributes}>(x, k)"


GRAPHS = (
    graph(
        "one_hot_k1",
        11,
        _transposed(),
        constants={"k": one_hot((1, 1), (0, 0))},
        oracle=lambda x: conv(oracle.insert_zeros(x, tight=True)),
    ),
    graph("one_hot_k2", 1, _transposed(), constants={"k": one_hot((2, 2), (0, 0))}),
    graph(
        "one_hot_k2_first_phase",
        13,
        _transposed(),
        constants={"k": one_hot((2, 2), (0, 1))},
        oracle=lambda x: conv(np.roll(oracle.insert_zeros(x), 1, 3)),
    ),
    graph(
        "one_hot_k3_pad1",
        13,
        _transposed(", pads=[1,1,1,1], output_padding=[1,1]"),
        constants={"k": one_hot((3, 3), (1, 1))},
    ),
    graph(
        "one_hot_bias",
        13,
        "z = ConvTranspose<strides=[2,2], group=2>(x, k, shift)",
        constants={"k": one_hot((2, 2), (0, 0)), "shift": floats(1, 2)},
        stride=None,
        expect=None,
        oracle=lambda x: conv(oracle.insert_zeros(x) + floats(1, 2).reshape(1, 2, 1, 1)),
    ),
    graph(
        "two_hot_k2",
        13,
        _transposed(),
        constants={"k": one_hot((2, 2), (0, 0), (1, 1))},
        stride=None,
        expect=None,
        oracle=lambda x: conv(oracle.insert_zeros(x) + oracle.insert_zeros(x, first=1)),
    ),
    graph(
        "one_hot_dense",
        13,
        "z = ConvTranspose<strides=[2,2]>(x, k)",
        constants={
            "k": np.einsum("io,yx->ioyx", np.eye(2), np.array([[1, 0], [0, 0]])).astype(np.float32)
        },
    ),
    graph(
        "one_hot_dynamic",
        13,
        _transposed(),
        constants={"k": one_hot((2, 2), (0, 0))},
        dims="N,2,H,W",
    ),
    graph(
        "one_hot_group_swaps_channels",
        13,
        "z = ConvTranspose<strides=[2,2]>(x, k)",
        constants={
            "k": np.einsum("io,yx->ioyx", np.eye(2)[::-1], np.array([[1, 0], [0, 0]])).astype(
                np.float32
            )
        },
        expect=None,
        oracle=lambda x: spread(x[:, ::-1]),
    ),
    graph(
        "pad2_before",
        9,
        "t = Pad<pads=[0,0,0,1,0,0,1,0]>(x) v = Reshape(t, six) "
        "p = Pad<pads=[0,0,0,0,0,0,0,0,0,1,0,1]>(v) z = Reshape(p, size)",
        constants={
            "six": ints(N, C, H + 1, 1, W + 1, 1),
            "size": ints(N, C, 2 * H + 2, 2 * W + 2),
        },
        oracle=lambda x: _padded(x, True),
    ),
    graph(
        "pad2_behind",
        9,
        "v = Reshape(x, six) p = Pad<pads=[0,0,0,0,0,0,0,0,0,1,0,1]>(v) "
        "t = Reshape(p, size) z = Pad<pads=[0,0,0,1,0,0,1,0]>(t)",
        constants={"six": ints(N, C, H, 1, W, 1), "size": ints(N, C, 2 * H, 2 * W)},
        oracle=lambda x: _padded(x, False),
    ),
    graph(
        "pad11_behind_one_hot",
        11,
        "t = ConvTranspose<strides=[2,2], group=2>(x, k) z = Pad(t, pads)",
        constants={"k": one_hot((2, 2), (0, 0)), "pads": ints(0, 0, 0, 1, 0, 0, 1, 0)},
        oracle=lambda x: _padded(x, False),
    ),
    graph(
        "pad13_behind_mask",
        13,
        f"r = Resize<{NEAREST}>(x, , s) m = Mul(r, mask) z = Pad(m, pads)",
        constants={
            "s": floats(1, 1, 2, 2),
            "mask": mask(2 * H, 2 * W),
            "pads": ints(0, 0, 0, 1, 0, 0, 1, 0),
        },
        oracle=lambda x: _padded(x, False),
    ),
    graph(
        "pad13_behind_reflect",
        13,
        't = ConvTranspose<strides=[2,2], group=2>(x, k) z = Pad<mode="reflect">(t, pads)',
        constants={"k": one_hot((2, 2), (0, 0)), "pads": ints(0, 0, 1, 1, 0, 0, 1, 1)},
        expect=None,  # the ConvTranspose is a site of its own
        oracle=lambda x: conv(
            np.pad(oracle.insert_zeros(x), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
        ),
    ),
    graph(
        "slice_behind",
        13,
        "t = ConvTranspose<strides=[2,2], group=2>(x, k) z = Slice(t, from, to, a)",
        constants={
            "k": one_hot((2, 2), (0, 0)),
            "from": ints(0, 0),
            "to": ints(-1, -1),
            "a": ints(2, 3),
        },
        oracle=lambda x: conv(oracle.insert_zeros(x, tight=True)),
    ),
)
