"""Products of an image with a banded matrix, whose rows each read a few neighbouring pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.rewrites.emit import Emitter

Array = NDArray[Any]

BLOCK = 8
"""Rows of the image in a block; an image of up to twice as many is one block."""


def block_count(rows: int) -> int:
    """How many blocks of rows an image of so many ``rows`` is multiplied in."""
    return max(1, rows // BLOCK) if rows > 2 * BLOCK else 1


def multiply_rows(
    emitter: Emitter, tensor: gs.Tensor, axis: int, band: Array, starts: Sequence[int]
) -> gs.Tensor:
    """Multiply the last axis but one, which is ``axis``, by a banded matrix, block by block.

    Each block of rows reads only the part of the image that it needs. ``starts`` has the first
    row of each block.
    """
    made = []
    for block, first, last in blocks(band, starts):
        rows = tensor
        if (first, last) != (0, band.shape[1]):
            rows = emitter.slice(tensor, [first], [last], [axis])
        made.append(emitter.add("MatMul", [emitter.constant("matrix", block), rows]))
    return made[0] if len(made) == 1 else emitter.add("Concat", made, axis=axis)


def blocks(band: Array, starts: Sequence[int]) -> Iterator[tuple[Array, int, int]]:
    """Cut a banded matrix into blocks of rows without the columns of zeros.

    Yields each block with its first column and the column after its last.
    """
    for start, end in pairwise([*starts, len(band)]):
        if start >= end:
            continue
        used = np.flatnonzero(band[start:end].any(axis=0))
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        yield band[start:end, first:last], first, last
