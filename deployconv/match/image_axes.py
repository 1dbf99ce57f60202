"""Say which axis of a tensor is which axis of an image ``[N, C, i_1 .. i_n]``.

Frameworks keep images with their channels last, ``[N, i_1 .. i_n, C]``, and signals without the
height that a two-dimensional Conv needs. A Conv reads ``[N, C, i_1 .. i_n]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

Size = TypeVar("Size")


@dataclass(frozen=True)
class ImageAxes:
    """How the axes of a tensor become those of an image ``[N, C, i_1 .. i_n]``.

    Attributes:
        order: per axis of the image the axis of the tensor; None for one of size 1 that the tensor
            lacks. Empty if the tensor is such an image itself.
    """

    order: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, order: Sequence[int | None]) -> ImageAxes:
        """The axes in ``order``, which has each axis of the tensor once."""
        return cls(() if tuple(order) == tuple(range(len(order))) else tuple(order))

    @property
    def perm(self) -> tuple[int, ...]:
        """The axes of the tensor as they follow each other in the image."""
        return tuple(axis for axis in self.order if axis is not None)

    @property
    def added(self) -> tuple[int, ...]:
        """The axes of the image that the tensor lacks."""
        return tuple(at for at, axis in enumerate(self.order) if axis is None)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators that make the image of the tensor."""
        transposed = ("Transpose",) if self.perm != tuple(sorted(self.perm)) else ()
        return (*transposed, *(("Unsqueeze",) if self.added else ()))

    def of_tensor(self, sizes: Sequence[Size | int]) -> tuple[Size | int, ...]:
        """The shape of the image, from that of the tensor."""
        if not self.order:
            return tuple(sizes)
        return tuple(1 if axis is None else sizes[axis] for axis in self.order)

    def to_tensor(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The shape of the tensor, from that of the image."""
        if not self.order:
            return tuple(sizes)
        known = dict(zip(self.order, sizes, strict=True))
        return tuple(known[axis] for axis in range(len(self.perm)))

    def steps(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How far apart in a tensor of this shape neighbours along each axis of the image are."""
        apart = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
        order = self.order or range(len(sizes))
        return tuple(0 if axis is None else apart[axis] for axis in order)

    @property
    def channels(self) -> int | None:
        """The axis of the tensor that has the channels; None if it has none."""
        return self.order[1] if self.order else 1


AS_THEY_ARE = ImageAxes()
"""The axes of a tensor that is an image ``[N, C, i_1 .. i_n]`` itself."""
