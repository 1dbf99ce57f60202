"""The limits that a runtime or compiler sets for the nodes of a rewrite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ChannelOrder = Literal["CRD", "DCR"]
"""The channel orders of DepthToSpace: the phase is fastest in CRD, slowest in DCR."""


@dataclass(frozen=True)
class Restrictions:
    """What may be written in place of a layer. The default limits nothing.

    Attributes:
        operators: the ONNX operators that may be written; None for any.
        depth_to_space: the block sizes that DepthToSpace takes, by channel order; a channel order
            that is missing cannot be written, and None as block sizes allows all of them. None in
            place of the mapping allows every DepthToSpace.
        max_rank: the most dimensions that a tensor may have; None for any number.
        reshape_zero: whether a Reshape may copy a size with a literal 0.
        reshape_minus_one: whether a Reshape may leave one size to be computed with a literal -1.
        computed_shapes: whether the sizes of a Reshape or Slice may be computed as the model runs.
        crops: whether a crop may follow the shuffle as a Slice. If not, the pads of the Conv are
            chosen so that nothing is left over; if the output is no multiple of the stride, a
            depthwise Conv that copies its input crops it.
        transposed_pads: whether a ConvTranspose that stays may have pads. If not, it has none, and
            a Slice follows it.
        edge_pads: whether a Pad may repeat the edge of an image. If not, Slices and a Concat do.
        matrix_first: whether the first input of a MatMul may be a constant. If not, Transposes put
            the axis that is multiplied last.
        col2im: whether a Col2Im may be written, which few runtimes beside onnxruntime have.
        shuffle_in_twos: whether a shuffle of 4 is written as two of 2, and one of 8 as three.
        symbolic_shapes: whether ``value_info`` may name a dynamic size.
    """

    operators: frozenset[str] | None = None
    depth_to_space: Mapping[ChannelOrder, tuple[int, ...] | None] | None = None
    max_rank: int | None = None
    reshape_zero: bool = True
    reshape_minus_one: bool = True
    computed_shapes: bool = True
    crops: bool = True
    transposed_pads: bool = True
    edge_pads: bool = True
    matrix_first: bool = True
    col2im: bool = True
    shuffle_in_twos: bool = False
    symbolic_shapes: bool = True


UNRESTRICTED = Restrictions()
"""Limits nothing: any runtime that follows the ONNX standard."""
