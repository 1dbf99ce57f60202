"""A Conv that was found after a Concat of images, some of them upsampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deployconv.match.attributes import Geometry
from deployconv.match.operators import Operators, ranked
from deployconv.match.site import BaseSite, UpsampleSite

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.match.axis_map import ConcatInput


@dataclass(frozen=True, eq=False, kw_only=True)
class ConcatSite(BaseSite):
    """A Conv that reads a Concat of channels in which at least one image is upsampled.

    Attributes:
        conv: the Conv alone, as an upsampling layer of stride 1 that reads the result of the
            Concat. Its pointwise layers are those before and after the Concat.
        inputs: what the Concat joins, in its order.
        after: name of the result of the pointwise layers after the Concat, if there are any.
    """

    conv: UpsampleSite
    inputs: tuple[ConcatInput, ...]
    after: tuple[str, ...]

    @property
    def layer(self) -> gs.Node:
        """The Conv."""
        return self.conv.layer

    @property
    def output(self) -> str:
        """Name of the result of the Conv."""
        return self.conv.output

    @property
    def geometry(self) -> Geometry:
        """The attributes of the Conv, and the stride of the first image that is upsampled."""
        return self.conv.geometry

    @property
    def dtype(self) -> str:
        """Element type of the weight."""
        return self.conv.dtype

    @property
    def operators(self) -> Operators:
        """The operators of the layer as it stands in the model."""
        return replace(self.conv.operators, others=ranked(self.nodes[:-1]))
