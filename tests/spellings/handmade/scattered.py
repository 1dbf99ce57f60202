"""Zero insertion by ScatterND and ScatterElements; max unpooling, which is none."""

from __future__ import annotations

import numpy as np

from tests.spellings import oracle
from tests.spellings.corpus import Array
from tests.spellings.handmade.graph import conv, ints
from tests.spellings.handmade.spread import C, H, N, W, graph, mask


def _positions(*axes: range) -> np.ndarray:
    """ScatterND indices ``[..., rank]`` of a grid."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.int64)


_EVERY = _positions(range(N), range(C), range(0, 2 * H, 2), range(0, 2 * W, 2))
_ZEROS = np.zeros((N, C, 2 * H, 2 * W), np.float32)
_ROWS = np.broadcast_to(np.arange(0, 2 * H, 2, dtype=np.int64)[:, None], (N, C, H, W)).copy()
_COLUMNS = np.broadcast_to(np.arange(0, 2 * W, 2, dtype=np.int64), (N, C, 2 * H, W)).copy()
_MOVED = np.where(_EVERY.max() == _EVERY, _EVERY - 1, _EVERY)


def _scattered(x: Array) -> Array:
    y = _ZEROS.copy()
    y[tuple(_MOVED.reshape(-1, 4).T)] = x.ravel()
    return y


def _unpooled(x: Array) -> Array:
    """Each maximum of a 2x2 block at its own place, zeros elsewhere."""
    blocks = x.reshape(N, C, 2, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(N, C, 2, 3, 4)
    keep: Array = np.eye(4, dtype=np.float32)[blocks.argmax(axis=-1)] * blocks
    return keep.reshape(N, C, 2, 3, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)


GRAPHS = (
    graph(
        "scatter_nd11", 11, "z = ScatterND(zeros, at, x)", constants={"zeros": _ZEROS, "at": _EVERY}
    ),
    graph(
        "scatter_nd18_none",
        18,
        'z = ScatterND<reduction="none">(zeros, at, x)',
        constants={"zeros": _ZEROS, "at": _EVERY},
    ),
    graph(
        "scatter_nd16_add",
        16,
        'z = ScatterND<reduction="add">(zeros, at, x)',
        constants={"zeros": _ZEROS, "at": _EVERY},
    ),
    graph(
        "scatter_nd_constant_of_shape",
        13,
        "zeros = ConstantOfShape(size) z = ScatterND(zeros, at, x)",
        constants={"size": ints(N, C, 2 * H, 2 * W), "at": _EVERY},
    ),
    graph(
        "scatter_nd_ones",
        13,
        "ones = ConstantOfShape<value=float[1] {1.0}>(size) z = ScatterND(ones, at, x)",
        constants={"size": ints(N, C, 2 * H, 2 * W), "at": _EVERY},
        stride=None,
        expect=None,
        oracle=lambda x: conv(
            np.where(mask(2 * H, 2 * W) > 0, oracle.insert_zeros(x), np.float32(1))
        ),
    ),
    graph(
        "scatter_nd_moved_last",
        13,
        "z = ScatterND(zeros, at, x)",
        constants={"zeros": _ZEROS, "at": _MOVED},
        stride=None,
        expect=None,
        oracle=lambda x: conv(_scattered(x)),
    ),
    graph(
        "scatter_elements11",
        11,
        "t = ScatterElements<axis=2>(zr, rows, x) z = ScatterElements<axis=3>(zeros, columns, t)",
        constants={
            "zr": np.zeros((N, C, 2 * H, W), np.float32),
            "zeros": _ZEROS,
            "rows": _ROWS,
            "columns": _COLUMNS,
        },
    ),
    graph(
        "scatter9",
        9,
        "t = Scatter<axis=2>(zr, rows, x) z = Scatter<axis=3>(zeros, columns, t)",
        constants={
            "zr": np.zeros((N, C, 2 * H, W), np.float32),
            "zeros": _ZEROS,
            "rows": _ROWS,
            "columns": _COLUMNS,
        },
    ),
    graph(
        "max_unpool",
        11,
        "p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) "
        "z = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, i)",
        shape=(N, C, 4, 6),
        stride=None,
        expect=None,
        oracle=lambda x: conv(_unpooled(x)),
    ),
    graph(
        "max_unpool_output_shape",
        9,
        "p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) "
        "z = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, i, size)",
        shape=(N, C, 4, 6),
        constants={"size": ints(N, C, 4, 6)},
        stride=None,
        expect=None,
        oracle=lambda x: conv(_unpooled(x)),
    ),
)
