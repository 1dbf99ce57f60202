"""The layouts in which a tensor may hold an image: channels first, channels last, or tokens.

    first    [N, C, i_1 .. i_n]
    last     [N, i_1 .. i_n, C]
    tokens   [N, i_1 * i_2, C] or [N * i_1 * i_2, C], one token for each pixel

Index maps between tensors of any of them are brought to channels first, so that one definition of
a pixel shuffle holds for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LayoutName = Literal["first", "last", "tokens"]
_RANKS = range(3, 6)


@dataclass(frozen=True)
class ImageLayout:
    """How a tensor holds an image, and the shape ``[N, C, ..]`` of that image.

    Attributes:
        name: which layout.
        image: the shape of the image, channels first.
    """

    name: LayoutName
    image: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The spatial sizes."""
        return self.image[2:]

    def to_first(self, values: Array) -> Array:
        """``values``, one for each element of a tensor of this layout, as an image."""
        if self.name == "first":
            return values.reshape(self.image)
        batch, channels, *sizes = self.image
        return np.moveaxis(values.reshape(batch, *sizes, channels), -1, 1)


def layouts(shape: Sequence[int], grids: Sequence[tuple[int, int]]) -> Iterator[ImageLayout]:
    """The layouts that a tensor of ``shape`` may have; tokens may lie in one of ``grids``."""
    shape = tuple(shape)
    if len(shape) in _RANKS:
        yield ImageLayout("first", shape)
        yield ImageLayout("last", (shape[0], shape[-1], *shape[1:-1]))
    for grid in grids:
        if len(shape) == 3 and shape[1] == prod(grid):
            yield ImageLayout("tokens", (shape[0], shape[2], *grid))
        if len(shape) == 2 and shape[0] % prod(grid) == 0:
            yield ImageLayout("tokens", (shape[0] // prod(grid), shape[1], *grid))


def enlarged(grid: tuple[int, int], tokens: int) -> Iterator[tuple[int, int]]:
    """The grids of so many ``tokens`` that are ``grid`` times whole numbers."""
    times, rest = divmod(tokens, prod(grid))
    if not rest:
        for rows in range(1, times + 1):
            if times % rows == 0:
                yield grid[0] * rows, grid[1] * (times // rows)


def between(sources: Array, source: ImageLayout, target: ImageLayout) -> Array:
    """An index map between two layouts as one between the images, channels first.

    ``sources`` has the flat index in the source of each element of the target, and no `ZERO`.
    """
    count = prod(source.image)
    numbers = np.empty(count, np.int64)
    numbers[source.to_first(np.arange(count)).ravel()] = np.arange(count)
    return numbers[target.to_first(sources)]
