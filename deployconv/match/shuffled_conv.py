"""A Conv with the pixel shuffle behind it is an upsampling layer, its kernel apart by phases.

Conv k to C * P channels -> shuffle by s   is a ConvTranspose of kernel s * k and stride s:
tap s*t + s - 1 - q of channel c           is tap t of the channel that becomes phase q of c
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match.site import ChannelOrder, ShuffleSite, UpsampleSite
from deployconv.polyphase import Axis

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ShuffledConv(UpsampleSite):
    """The two as one; ``weight`` and ``bias`` are those of the Conv, phases among the channels."""

    order: ChannelOrder = "CRD"

    @property
    def channels(self) -> tuple[int, int]:
        """(C_in, C_out), the latter behind the shuffle."""
        c_in, made = super().channels
        return c_in, made // self.phases

    def kernel(self, values: Array) -> Array:
        """The kernel in correlation layout, ``[C, C_in, s_1*k_1 .. s_n*k_n]``."""
        apart, rank = self._apart(values), self.rank
        flipped = np.flip(apart, axis=tuple(range(1, 1 + rank)))
        pairs = [axis for spatial in range(rank) for axis in (2 + rank + spatial, 1 + spatial)]
        ordered = flipped.transpose(0, 1 + rank, *pairs)
        return ordered.reshape(*ordered.shape[:2], *(axis.taps for axis in self.axes))

    def phased(self, values: Array, copies: int) -> Array:
        """The bias ``[C * P]`` as ``[C, P]``."""
        return self._apart(values).reshape(-1, copies)

    def _apart(self, values: Array) -> Array:
        """``[C * P, ..]`` as ``[C, s_1 .. s_n, ..]``."""
        rest = values.shape[1:]
        if self.order == "CRD":
            return values.reshape(-1, *self.stride, *rest)
        return np.moveaxis(values.reshape(*self.stride, -1, *rest), self.rank, 0)


def shuffled_conv(shuffle: ShuffleSite) -> ShuffledConv | None:
    """The Conv of ``shuffle`` and itself as one layer; None where that is none of stride 1."""
    conv = shuffle.conv.layer if shuffle.conv is not None else None
    if shuffle.conv is None or conv is None or conv.group > 1 or conv.weight.quantized is not None:
        return None
    axes = tuple(
        Axis(stride, stride * axis.taps, 1, stride * axis.origin + 1 - stride, stride * axis.extra)
        for stride, axis in zip(shuffle.stride, conv.axes, strict=True)
    )
    own = {field.name: getattr(conv, field.name) for field in fields(conv)}
    joint = {
        "nodes": shuffle.nodes,
        "output": shuffle.output,
        "axes": axes,
        "original": shuffle.conv.original,
        "order": shuffle.order,
    }
    return ShuffledConv(**{**own, **joint})
