"""The tensor that a shuffle moves, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

_FIRST_ARITHMETIC = 7
"""The first opset in which sizes can be computed."""


@dataclass(frozen=True)
class Layout:
    """The tensor that a shuffle moves.

    Attributes:
        channels: C, the channels that are left.
        stride: phases per spatial axis.
        sizes: spatial output sizes of the Conv, None if dynamic.
        crop: elements to remove after the shuffle, (begin, end) per axis.
        group: groups of the Conv.
        opset: version of the ONNX operators.
        dtype: element type.
        batch: N, None if dynamic.
        slices: whether a Slice may crop; else a Conv does.
    """

    channels: int
    stride: tuple[int, ...]
    sizes: tuple[int | None, ...]
    crop: tuple[tuple[int, int], ...]
    group: int
    opset: int
    dtype: str
    batch: int | None = None
    slices: bool = True

    @property
    def rank(self) -> int:
        return len(self.stride)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The sizes if all are known."""
        known = tuple(size for size in self.sizes if size is not None)
        return known if len(known) == self.rank else None

    @property
    def cropped(self) -> bool:
        """Whether anything is removed after the shuffle."""
        return any(map(any, self.crop))

    @property
    def dynamic_axes(self) -> int:
        return sum(size is None for size in self.sizes)

    @property
    def computed(self) -> bool:
        """Whether a Reshape needs sizes that are read as the model runs.

        One unknown size may be a -1, but not beside a batch that may be empty.
        """
        return self.dynamic_axes > (1 if self.batch else 0)

    @property
    def reshapes(self) -> bool:
        """Whether a Reshape can state the sizes: onnxruntime multiplies int64 from opset 7 on."""
        return not self.computed or self.opset >= _FIRST_ARITHMETIC

    def at_sizes(self, sizes: Sequence[int]) -> Layout:
        """The same for a Conv that makes these spatial sizes; what is dynamic stays so."""
        known = zip(self.sizes, sizes, strict=True)
        return replace(self, sizes=tuple(None if old is None else size for old, size in known))
