"""A Resize that was found in a model by itself, and the axes that it changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor

import numpy as np

from deployconv.match.attributes import Geometry
from deployconv.match.operators import Operators, ranked
from deployconv.match.site import BaseSite
from deployconv.resampling import Interpolation


@dataclass(frozen=True)
class ResampledAxis:
    """An axis that a Resize changes: its size, or its values only.

    Attributes:
        position: which axis it is.
        inputs: its size before; None if that does not follow from the model.
        outputs: its size after; None as well then.
        scale: as given, or the ratio of the sizes, which is then the same at all sizes.
    """

    position: int
    inputs: int | None
    outputs: int | None
    scale: float

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of the axis before and after the Resize; both must be known."""
        assert self.inputs is not None
        assert self.outputs is not None
        return self.inputs, self.outputs

    @property
    def resized(self) -> bool:
        """Whether its size changes, or might."""
        return self.scale != 1 or self.inputs != self.outputs

    @property
    def grows(self) -> bool:
        """Whether the Resize makes the axis longer."""
        if self.inputs is None or self.outputs is None:
            return self.scale > 1
        return self.outputs > self.inputs

    def at(self, inputs: int) -> ResampledAxis:
        """Return the same axis for an input of this size."""
        return replace(self, inputs=inputs, outputs=floor(np.float32(inputs) * self.scale))


@dataclass(frozen=True, eq=False, kw_only=True)
class ResampleSite(BaseSite):
    """A Resize that interpolates, or a nearest one that is no part of a larger layer.

    Attributes:
        source: name of the tensor that is resampled.
        output: name of the result.
        axes: the axes that change: those whose size changes, then those that are blurred only.
        how: how it makes a pixel of those around it.
        by_sizes: True if the node is given sizes, False if it is given scales.
        shape: of ``source``; None for each size that does not follow from the model.
        dtype: element type of ``source``.
        geometry: the factors, if they are whole.
    """

    source: str
    output: str
    axes: tuple[ResampledAxis, ...]
    how: Interpolation
    by_sizes: bool
    shape: tuple[int | None, ...]
    dtype: str
    geometry: Geometry | None

    @property
    def enlarges(self) -> bool:
        """Whether an axis becomes longer."""
        return any(axis.grows for axis in self.axes)

    @property
    def is_nearest(self) -> bool:
        """Whether it copies pixels: then only a target asks for its rewrite, no policy does."""
        return self.how.mode == "nearest"

    @property
    def operators(self) -> Operators:
        """The operators of the layer as it stands in the model."""
        return Operators(None, ranked(self.nodes), self.dtype)
