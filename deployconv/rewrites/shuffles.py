"""The registry of shuffles: how phases move from channels into space.

The Conv makes ``[N, C * s_1 * .. * s_n, m_1 .. m_n]``. The shuffle makes of it
``[N, C, s_1 * m_1, .., s_n * m_n]``, and the crop removes what is left over. In channel order
``CRD`` the phases change fastest, in ``DCR`` slowest (see the ONNX operator DepthToSpace).

=================  ======================================================  ======================
name               nodes                                                   needs
=================  ======================================================  ======================
``dcr``            DepthToSpace                                            4-D, square, group 1
``crd``            DepthToSpace(mode=CRD)                                  4-D, square, opset 11
``dcr-steps``      DepthToSpace by each prime factor of the stride         as ``dcr``, 4, 6 ..
``crd-steps``      DepthToSpace(mode=CRD) by each prime factor             as ``crd``, 4, 6 ..
``transpose``      Reshape, Transpose, Reshape                             any rank and stride
``two-step``       one axis at a time: Reshape, Transpose of neighbours    static sizes
``col2im``         Reshape, Col2Im with stride = block; its pads may crop  opset 18, float
``channels-last``  Transpose to channels-last, Reshape, Transpose of       group 1, static or 1-D
                   whole runs of channels, Reshape, Transpose back
``by-axis``        as ``two-step``, sizes that are not known by a 0        static batch
``concat``         Split into phases, Concat and Reshape for each axis     group 1, static sizes
``masks``          Split into phases, nearest Resize of each, Mul with a   group 1, static sizes
                   constant mask, Add
=================  ======================================================  ======================

``channels-last`` is for integer layers: onnxruntime runs an integer Conv channels-last, so the
outer two Transposes cancel with those that it puts around the Conv. ``dcr-steps``, ``crd-steps``,
``by-axis``, ``concat`` and ``masks`` are for targets that lack what the others need
(`Restrictions`). ``concat`` and ``masks`` join images of one phase each: with one Conv per phase
they need no Split, and fit with groups too.

A new shuffle is one function that writes it and one row of `SHUFFLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match.operators import Ranked
from deployconv.options import Shuffle as ShuffleOption
from deployconv.restrictions import ChannelOrder, Restrictions
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.channel_layout import prime_factors, shuffle_order
from deployconv.rewrites.emit import INT64_MAX, Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.phase_joins import (
    concat_operators,
    join_by_concat,
    join_by_masks,
    mask_operators,
    write_concat,
    write_masks,
)

Array = NDArray[Any]


def _reshape_and_transpose(stride: Sequence[int]) -> Ranked:
    dimensions = 2 + len(stride) + sum(step > 1 for step in stride)
    return (("Reshape", dimensions), ("Transpose", dimensions))


def _depth_to_space(stride: Sequence[int]) -> Ranked:
    return (("DepthToSpace", 2 + len(stride)),)


@dataclass(frozen=True)
class Shuffle:
    """One way to move phases from channels into space: a row of `SHUFFLES`.

    Attributes:
        name: of the option ``--shuffle`` and in reports.
        emit: writes the nodes.
        channel_order: the order of channels and phases that it reads.
        fits: whether it can write a layout, apart from what the next three fields say.
        min_opset: the first opset that has its operators.
        dtypes: the element types that runtimes take; None for any.
        needs_static: True if all spatial sizes must be known.
        portable: True if every runtime has it; these are taken by default, in table order.
        crops: for which layouts ``emit`` crops as well.
        operators: the operators that it writes for a stride, with the dimensions of their tensors.
        joins: writes the shuffle of images of one phase each, for shuffles that begin by splitting
            their input into these; None for others.
        steps: True for a step by each prime factor of the stride, see `shuffle_order`.
        last_resort: True if it is written only where nothing else can be.
        search_rank: when the search tries it, smallest first; None for never.
        fused_rank: when it is tried at the end of a region, smallest first; None for never.
        integer_rank: when it is tried after an integer layer, smallest first; None for never.
        quickest_fused: True if fused forms are tried with it besides a portable one.
        integers_only: True if it is not tried after a float layer.
        general: True for the encoding of any rank and stride, which takes the longest.
        quicker_than_general: True if the general one need not be timed beside it.
        suits_one_axis: True if the search may combine it with the separable form.
        suits_split: True if the search may combine it with one Conv per phase.
        plain_memory: True if onnxruntime runs it on plain NCHW memory only: a Conv that computes
            in blocks of channels is then followed by a copy of its result.
    """

    name: ShuffleName
    emit: Callable[[Emitter, gs.Tensor, Layout], gs.Tensor]
    channel_order: ChannelOrder = "CRD"
    fits: Callable[[Layout], bool] = lambda _: True
    min_opset: int = 1
    dtypes: frozenset[str] | None = None
    needs_static: bool = False
    portable: bool = False
    crops: Callable[[Layout], bool] = lambda _: False
    operators: Callable[[Sequence[int]], Ranked] = _reshape_and_transpose
    joins: Callable[[Emitter, Sequence[gs.Tensor], Layout], gs.Tensor] | None = None
    steps: bool = False
    last_resort: bool = False
    search_rank: int | None = None
    fused_rank: int | None = None
    integer_rank: int | None = None
    quickest_fused: bool = False
    integers_only: bool = False
    general: bool = False
    quicker_than_general: bool = False
    suits_one_axis: bool = False
    suits_split: bool = False
    plain_memory: bool = False

    @property
    def phases_in_order(self) -> bool:
        """Whether the phases of a channel stand side by side in its input, in their order."""
        return self.channel_order == "CRD" and not self.steps

    def takes(self, layout: Layout) -> bool:
        """Whether it can write ``layout``."""
        return (
            layout.opset >= self.min_opset
            and (self.dtypes is None or layout.dtype in self.dtypes)
            and (not self.needs_static or layout.static is not None)
            and self.fits(layout)
        )


def choose_shuffle(layout: Layout, asked: ShuffleOption = "auto") -> ShuffleName | Reason:
    """The shuffle that was asked for if it can write ``layout``, else a portable one."""
    if asked != "auto" and SHUFFLES[asked].takes(layout):
        return asked
    for shuffle in SHUFFLES.values():
        if shuffle.portable and shuffle.takes(layout):
            return shuffle.name
    batch = "" if layout.batch else " beside a dynamic batch"
    text = f"opset {layout.opset} cannot reshape {layout.dynamic_axes} dynamic sizes{batch}"
    return Reason("dynamic-sizes-old-opset", text)


def in_order_of_cost(restrictions: Restrictions) -> list[Shuffle]:
    """All shuffles as they are tried if not all may be written."""
    return sorted(SHUFFLES.values(), key=lambda row: restrictions.shuffle_in_twos and not row.steps)


def channel_order(name: ShuffleName, layout: Array, rank: int) -> Array:
    """The channels of a `channel_layout` in the order that a shuffle reads, ``[C * P]``."""
    row = SHUFFLES[name]
    return shuffle_order(layout, rank, row.channel_order, row.steps)


def write_shuffle(
    emitter: Emitter, tensor: gs.Tensor, name: ShuffleName, layout: Layout
) -> gs.Tensor:
    """Write the shuffle, and the crop if it does not crop by itself."""
    shuffle = SHUFFLES[name]
    tensor = shuffle.emit(emitter, tensor, layout)
    return tensor if shuffle.crops(layout) else write_crop(emitter, tensor, layout)


def write_crop(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Write a Slice that removes what the shuffle leaves over; nothing if nothing is."""
    axes = [axis for axis in range(layout.rank) if layout.crop[axis] != (0, 0)]
    if not axes:
        return tensor
    if not layout.slices:
        # A depthwise Conv that copies its input, without the pads to make as much as it reads.
        kernel = np.zeros((1, 1, *(1 + sum(ends) for ends in layout.crop)), layout.dtype)
        kernel[(0, 0, *(begin for begin, _ in layout.crop))] = 1
        weight = emitter.constant("crop", np.repeat(kernel, layout.channels, axis=0))
        group = {"group": layout.channels} if layout.channels > 1 else {}
        shape = list(kernel.shape[2:])
        return emitter.add("Conv", [tensor, weight], "crop", kernel_shape=shape, **group)
    return emitter.slice(
        tensor,
        [layout.crop[axis][0] for axis in axes],
        [-layout.crop[axis][1] or INT64_MAX for axis in axes],
        [axis + 2 for axis in axes],
    )


def _fits_steps(layout: Layout) -> bool:
    return _is_square(layout) and len(prime_factors(layout.stride[0])) > 1


def _write_dcr_steps(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    for factor in prime_factors(layout.stride[0]):
        tensor = _write_dcr(emitter, tensor, replace(layout, stride=(factor, factor)))
    return tensor


def _write_crd_steps(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    for factor in prime_factors(layout.stride[0]):
        tensor = _write_crd(emitter, tensor, replace(layout, stride=(factor, factor)))
    return tensor


def _is_square(layout: Layout) -> bool:
    return layout.rank == 2 and len(set(layout.stride)) == 1


def _fits_dcr(layout: Layout) -> bool:
    return _is_square(layout) and layout.group == 1


def _fits_channels_last(layout: Layout) -> bool:
    # A run holds all channels of a phase; with groups these are not side by side.
    dynamic = layout.rank == 1 and layout.reshapes
    return layout.group == 1 and (layout.static is not None or dynamic)


def _write_dcr(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    mode = {"mode": "DCR"} if emitter.opset >= 11 else {}
    return emitter.add("DepthToSpace", [tensor], "shuffle", blocksize=layout.stride[0], **mode)


def _write_crd(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    return emitter.add("DepthToSpace", [tensor], "shuffle", blocksize=layout.stride[0], mode="CRD")


def _write_transpose(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
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


def _write_two_step(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
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


def _write_by_axis(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
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


def _write_channels_last(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    rank, channels = layout.rank, layout.channels
    behind, front = [0, *range(2, rank + 2), 1], [0, rank + 1, *range(1, rank + 1)]
    tensor = emitter.add("Transpose", [tensor], perm=behind)
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
    return emitter.add("Transpose", [tensor], perm=front)


def _col2im_crops(layout: Layout) -> bool:
    """Whether the pads of Col2Im do the crop.

    With pads onnxruntime checks every element against the border and takes 1.8 times as long. For
    blocks of 2x2 a Slice after it costs less than that, for larger ones more.
    """
    return layout.stride != (2, 2)


def _write_col2im(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    crop = layout.crop if _col2im_crops(layout) else ((0, 0),) * layout.rank
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


_ROWS = (
    Shuffle(
        "dcr",
        _write_dcr,
        operators=_depth_to_space,
        channel_order="DCR",
        fits=_fits_dcr,
        portable=True,
        search_rank=2,
        suits_split=True,
        quicker_than_general=True,
    ),
    Shuffle(
        "crd",
        _write_crd,
        operators=_depth_to_space,
        fits=_is_square,
        min_opset=11,
        portable=True,
        search_rank=3,
        fused_rank=1,
        quicker_than_general=True,
    ),
    Shuffle(
        "dcr-steps",
        _write_dcr_steps,
        operators=_depth_to_space,
        channel_order="DCR",
        fits=lambda layout: _fits_dcr(layout) and _fits_steps(layout),
        steps=True,
    ),
    Shuffle(
        "crd-steps",
        _write_crd_steps,
        operators=_depth_to_space,
        fits=_fits_steps,
        min_opset=11,
        steps=True,
    ),
    Shuffle(
        "transpose",
        _write_transpose,
        fits=lambda layout: layout.reshapes or layout.rank == 1,
        portable=True,
        search_rank=4,
        fused_rank=2,
        integer_rank=2,
        general=True,
        suits_one_axis=True,
    ),
    Shuffle(
        "two-step",
        _write_two_step,
        needs_static=True,
        search_rank=1,
        integer_rank=1,
        quicker_than_general=True,
    ),
    Shuffle(
        "col2im",
        _write_col2im,
        min_opset=18,
        dtypes=frozenset({"float32", "float16"}),
        crops=_col2im_crops,
        search_rank=0,
        fused_rank=0,
        quickest_fused=True,
        suits_one_axis=True,
        suits_split=True,
        plain_memory=True,
    ),
    Shuffle(
        "channels-last",
        _write_channels_last,
        channel_order="DCR",
        fits=_fits_channels_last,
        search_rank=-1,
        integer_rank=0,
        integers_only=True,
    ),
    Shuffle(
        "by-axis",
        _write_by_axis,
        fits=lambda layout: bool(layout.batch),
        min_opset=5,
    ),
    Shuffle(
        "concat",
        write_concat,
        operators=concat_operators,
        channel_order="DCR",
        fits=lambda layout: layout.group == 1,
        min_opset=4,
        needs_static=True,
        joins=join_by_concat,
    ),
    Shuffle(
        "masks",
        write_masks,
        operators=mask_operators,
        channel_order="DCR",
        fits=lambda layout: layout.group == 1,
        min_opset=7,
        needs_static=True,
        joins=join_by_masks,
        last_resort=True,
    ),
)
SHUFFLES: dict[ShuffleName, Shuffle] = {shuffle.name: shuffle for shuffle in _ROWS}
"""Every shuffle by its name."""
