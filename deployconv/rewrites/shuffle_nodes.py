"""Write the nodes of each shuffle, and of the crop after it.

A shuffle makes ``[N, C, s_1 * m_1, .., s_n * m_n]`` of ``[N, C * s_1 * .. * s_n, m_1 .. m_n]``.
Which layers each of them can write is said in `shuffles`. Those that join images of one phase each
are in `phase_joins`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.rewrites.channel_layout import prime_factors
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout


def write_crop(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Remove the rows and columns that the shuffle leaves over, if there are any."""
    if layout.slices or not layout.cropped:
        return emitter.crop(tensor, layout.crop)
    # A depthwise Conv that copies its input, without the pads to make as much as it reads.
    kernel = np.zeros((1, 1, *(1 + sum(ends) for ends in layout.crop)), layout.dtype)
    kernel[(0, 0, *(begin for begin, _ in layout.crop))] = 1
    weight = emitter.constant("crop", np.repeat(kernel, layout.channels, axis=0))
    group = {"group": layout.channels} if layout.channels > 1 else {}
    shape = list(kernel.shape[2:])
    return emitter.add("Conv", [tensor, weight], "crop", kernel_shape=shape, **group)


def write_dcr_steps(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """DepthToSpace by each prime factor of the stride, phases slowest."""
    for factor in prime_factors(layout.stride[0]):
        tensor = write_dcr(emitter, tensor, replace(layout, stride=(factor, factor)))
    return tensor


def write_crd_steps(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """DepthToSpace by each prime factor of the stride, phases fastest."""
    for factor in prime_factors(layout.stride[0]):
        tensor = write_crd(emitter, tensor, replace(layout, stride=(factor, factor)))
    return tensor


def write_dcr(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """One DepthToSpace whose phases change slowest; before opset 11 it has no mode."""
    mode = {"mode": "DCR"} if emitter.opset >= 11 else {}
    return emitter.add("DepthToSpace", [tensor], "shuffle", blocksize=layout.stride[0], **mode)


def write_crd(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """One DepthToSpace whose phases change fastest."""
    return emitter.add("DepthToSpace", [tensor], "shuffle", blocksize=layout.stride[0], mode="CRD")


def write_transpose(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Reshape, Transpose and Reshape, all axes at once."""
    strided = [axis for axis in range(layout.rank) if layout.stride[axis] > 1]
    blocks = [layout.stride[axis] for axis in strided]
    # [N, C, blocks of the strided axes, m_1 .. m_n] -> each m followed by its block.
    order = [0, 1]
    for axis in range(layout.rank):
        order.append(2 + len(blocks) + axis)
        if axis in strided:
            order.append(2 + strided.index(axis))
    channels, front = layout.channels, [0, layout.channels, *blocks]
    if layout.computed:
        # In an image with as many more axes a 0 keeps each size at its place.
        apart = emitter.unsqueeze(tensor, [2 + at for at in range(len(blocks))])
        phased = emitter.reshape(apart, [*front, *(0,) * layout.rank])
    else:
        sizes = [-1 if size is None else size for size in layout.sizes]
        phased = emitter.reshape(tensor, [*front, *sizes])
    moved = emitter.add("Transpose", [phased], "shuffle", perm=order)
    if layout.computed and layout.rank == 1:
        return emitter.flatten_pixels(moved, channels)
    if layout.computed:
        added = [0, channels, *(0,) * layout.rank]
        return emitter.reshape_by(moved, tensor, [0, 0, *layout.stride], added)
    merged = [
        -1 if size is None else size * stride
        for size, stride in zip(layout.sizes, layout.stride, strict=True)
    ]
    return emitter.reshape(moved, [0, channels, *merged])


def write_two_step(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """One axis at a time, the last first: Reshape, and Transpose of two neighbouring axes."""
    sizes = layout.static
    assert sizes is not None
    done = 1  # elements of the axes whose phases are in place already
    for axis in reversed(range(layout.rank)):
        stride, rows = layout.stride[axis], prod(sizes[: axis + 1])
        if stride > 1:
            tail = [done] if done > 1 else []
            tensor = emitter.reshape(tensor, [-1, stride, rows, *tail])
            order = [0, 2, 1, *([3] if tail else [])]
            tensor = emitter.add("Transpose", [tensor], "shuffle", perm=order)
        done *= sizes[axis] * stride
    merged = [size * stride for size, stride in zip(sizes, layout.stride, strict=True)]
    return emitter.reshape(tensor, [-1, layout.channels, *merged])


def write_by_axis(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """One axis at a time, the last first, with a 0 for each size that is not known."""
    rank, unknown = layout.rank, [0] * layout.rank
    for axis in reversed(range(rank)):
        stride = layout.stride[axis]
        if stride == 1:
            continue
        # [images * s, 1, m_1 .. m_n] -> [images, other axes, m, s] -> [images, other axes, m * s]
        phased = emitter.reshape(tensor, [-1, stride, *unknown])
        others = [2 + other for other in range(rank) if other != axis]
        order = [0, *others, 2 + axis, 1]
        moved = emitter.add("Transpose", [phased], "shuffle", perm=order)
        merged = emitter.reshape(moved, [*unknown, -1])
        if axis < rank - 1:
            back = [0, *range(1, axis + 1), rank, *range(axis + 1, rank)]
            merged = emitter.add("Transpose", [merged], perm=back)
        tensor = emitter.unsqueeze(merged, [1])
    return emitter.reshape(tensor, [-1, layout.channels, *unknown])


def write_channels_last(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Transpose to channels-last, move whole runs of channels, and Transpose back."""
    rank, channels = layout.rank, layout.channels
    to_last, to_first = [0, *range(2, rank + 2), 1], [0, rank + 1, *range(1, rank + 1)]
    tensor = emitter.add("Transpose", [tensor], perm=to_last)
    if layout.static is None:
        merged = [0, -1, channels]
    else:
        merged = [-1, *(m * s for m, s in zip(layout.static, layout.stride, strict=True)), channels]
    if rank > 1:
        assert layout.static is not None
        # [N * m_1, m_2 .. m_n, s_1 .. s_n * C] -> each m followed by its phases.
        blocks = [*layout.stride[:-1], layout.stride[-1] * channels]
        tensor = emitter.reshape(tensor, [-1, *layout.static[1:], *blocks])
        order = [place for axis in range(rank) for place in (axis, rank + axis)]
        tensor = emitter.add("Transpose", [tensor], "shuffle", perm=order)
    if layout.computed:
        factors, added = [0, *layout.stride, 0], [0, 0, channels]
        tensor = emitter.reshape_by(tensor, tensor, factors, added)
    else:
        tensor = emitter.reshape(tensor, merged)
    return emitter.add("Transpose", [tensor], perm=to_first)


def col2im_crops(layout: Layout) -> bool:
    """Whether the pads of Col2Im do the crop.

    With pads onnxruntime checks every element against the border and takes 1.8 times as long. For
    blocks of 2x2 a Slice after it costs less than that, for larger ones more.
    """
    return layout.stride != (2, 2)


def write_col2im(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Reshape and Col2Im with strides as large as its blocks, so that none overlap."""
    crop = layout.crop if col2im_crops(layout) else ((0, 0),) * layout.rank
    cropped = [sum(ends) for ends in crop]
    image: gs.Tensor
    channels = layout.channels * prod(layout.stride)
    if layout.static is not None:
        sizes = zip(layout.static, layout.stride, cropped, strict=True)
        image = emitter.ints("image", [size * stride - crop for size, stride, crop in sizes])
    else:
        spatial = emitter.spatial_shape(tensor)
        image = emitter.add("Mul", [spatial, emitter.ints("stride", layout.stride)])
        if any(cropped):
            image = emitter.add("Sub", [image, emitter.ints("crop", cropped)])
    if layout.rank == 1:
        columns = tensor
    elif layout.static is None and not layout.batch:
        columns = emitter.flatten_pixels(tensor, channels)
    else:
        pixels = -1 if layout.static is None else prod(layout.static)
        columns = emitter.reshape(tensor, [0, channels, pixels])
    block = emitter.ints("block", layout.stride)
    begins, ends = zip(*crop, strict=True)
    return emitter.add(
        "Col2Im",
        [columns, image, block],
        "shuffle",
        strides=list(layout.stride),
        pads=[*begins, *ends],
    )
