"""The shuffles that join images of one phase each: by Concat and Reshape, or by masks.

The images are the results of one Conv per phase, or the channels of one Conv, split.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.match.operators import Ranked
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout


def _phases(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> list[gs.Tensor]:
    """The image of each phase, from channels in the order DCR."""
    return emitter.split(tensor, prod(layout.stride), layout.channels)


def write_concat(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Split the channels into phases and interleave these, see `join_by_concat`."""
    return join_by_concat(emitter, _phases(emitter, tensor, layout), layout)


def join_by_concat(emitter: Emitter, phases: Sequence[gs.Tensor], layout: Layout) -> gs.Tensor:
    """Interleave images axis by axis, the last one first.

    Rows that follow each other are put side by side, along the next axis, and the Reshape of the
    result puts one below the other. The last axis gets an axis of one element to that end.
    """
    assert layout.static is not None
    sizes, made = list(layout.static), list(phases)
    for axis in reversed(range(layout.rank)):
        step, last = layout.stride[axis], axis == layout.rank - 1
        if step == 1:
            continue
        if last:
            made = [emitter.reshape(one, [-1, sizes[axis], 1]) for one in made]
        beside = 2 if last else axis + 3
        sizes[axis] *= step
        joined = [
            emitter.add("Concat", made[at : at + step], axis=beside)
            for at in range(0, len(made), step)
        ]
        made = [emitter.reshape(one, [-1, layout.channels, *sizes]) for one in joined]
    return made[0]


def write_masks(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Split the channels into phases and add these up, see `join_by_masks`."""
    return join_by_masks(emitter, _phases(emitter, tensor, layout), layout)


def join_by_masks(emitter: Emitter, phases: Sequence[gs.Tensor], layout: Layout) -> gs.Tensor:
    """Repeat each image, and add them all up, each where its phase is."""
    assert layout.static is not None
    total = None
    for number, image in enumerate(phases):
        mask = np.zeros(prod(layout.stride), layout.dtype)
        mask[number] = 1
        tiled = np.tile(mask.reshape(layout.stride), layout.static)[None, None]
        repeated = emitter.repeat(image, layout.stride)
        kept = emitter.add("Mul", [repeated, emitter.constant("mask", tiled)])
        total = kept if total is None else emitter.add("Add", [total, kept])
    assert total is not None
    return total


def concat_operators(stride: Sequence[int]) -> Ranked:
    """The operators of `write_concat`, with the dimensions of their tensors."""
    dimensions = max(3, 2 + len(stride))
    return (("Split", 2 + len(stride)), ("Concat", dimensions), ("Reshape", dimensions))


def mask_operators(stride: Sequence[int]) -> Ranked:
    """The operators of `write_masks`, with the dimensions of their tensors."""
    dimensions = 2 + len(stride)
    return tuple((op, dimensions) for op in ("Split", "Resize", "Mul", "Add"))
