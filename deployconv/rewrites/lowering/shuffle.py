"""From phases in channels to phases in space: six spellings of one permutation.

The Conv gives ``[N, C * s_1 * .. * s_n, m_1 .. m_n]``; the shuffle makes
``[N, C, s_1 * m_1, .., s_n * m_n]`` and the crop removes what is over. Channel order ``CRD``
has the phases fastest, ``DCR`` slowest (ONNX operator DepthToSpace).

=================  ======================================================  ======================
``dcr``            DepthToSpace                                            4-D, square, group 1
``crd``            DepthToSpace(mode=CRD)                                  4-D, square, opset 11
``transpose``      Reshape, Transpose, Reshape                             every rank and stride
``two-step``       one axis at a time: Reshape, Transpose of neighbours    static sizes
``col2im``         Reshape, Col2Im with stride = block; its pads may crop  opset 18, float
``channels-last``  the channels behind, Reshape, Transpose of whole runs   group 1, static or 1-D
                   of channels, Reshape, the channels in front again
=================  ======================================================  ======================

``channels-last`` is for integers: onnxruntime runs an integer Conv with its channels last, so the
outer two Transposes meet those that it puts around the Conv, and both vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from deployconv.options import Shuffle
from deployconv.options import ShuffleName as ShuffleName
from deployconv.results import Reason
from deployconv.rewrites.lowering.emit import INT64_MAX, Emitter

COL2IM_OPSET = 18
"""The first opset with Col2Im."""


@dataclass(frozen=True)
class Layout:
    """What a shuffle has to move.

    Attributes:
        channels: C, the channels that are left.
        stride: phases per spatial axis.
        sizes: the Conv's spatial output sizes, None where dynamic.
        crop: elements to remove behind the shuffle, (begin, end) per axis.
        group: the Conv's groups.
        opset: version of the ONNX operators.
        dtype: element type.
    """

    channels: int
    stride: tuple[int, ...]
    sizes: tuple[int | None, ...]
    crop: tuple[tuple[int, int], ...]
    group: int
    opset: int
    dtype: str

    @property
    def rank(self) -> int:
        return len(self.stride)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The sizes where all are known."""
        known = tuple(size for size in self.sizes if size is not None)
        return known if len(known) == self.rank else None

    @property
    def cropped(self) -> bool:
        """Whether anything is removed behind the shuffle."""
        return any(map(any, self.crop))

    @property
    def dynamic_axes(self) -> int:
        return sum(size is None for size in self.sizes)


@dataclass(frozen=True)
class Spelling:
    """One spelling: where it fits, how it is written, the channel order that it reads."""

    fits: Callable[[Layout], bool]
    write: Callable[[Emitter, gs.Tensor, Layout], gs.Tensor]
    phases_first: bool = False
    crops: Callable[[Layout], bool] = lambda _: False


def spelling(layout: Layout, asked: Shuffle = "auto") -> ShuffleName | Reason:
    """The spelling that was asked for where it fits, else the portable one."""
    if asked != "auto" and SHUFFLES[asked].fits(layout):
        return asked
    for name in _PORTABLE:
        if SHUFFLES[name].fits(layout):
            return name
    text = f"opset {layout.opset} cannot reshape {layout.dynamic_axes} dynamic sizes"
    return Reason("dynamic-sizes-old-opset", text)


def write_shuffle(
    emitter: Emitter, tensor: gs.Tensor, shuffle: ShuffleName, layout: Layout
) -> gs.Tensor:
    """The shuffle, and the crop where it does not crop by itself."""
    spelled = SHUFFLES[shuffle]
    tensor = spelled.write(emitter, tensor, layout)
    return tensor if spelled.crops(layout) else write_crop(emitter, tensor, layout)


def write_crop(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Slice off what the shuffle leaves over; nothing where nothing is."""
    axes = [axis for axis in range(layout.rank) if layout.crop[axis] != (0, 0)]
    if not axes:
        return tensor
    return emitter.slice(
        tensor,
        [layout.crop[axis][0] for axis in axes],
        [-layout.crop[axis][1] or INT64_MAX for axis in axes],
        [axis + 2 for axis in axes],
    )


def _is_square(layout: Layout) -> bool:
    return layout.rank == 2 and len(set(layout.stride)) == 1


def _fits_dcr(layout: Layout) -> bool:
    return _is_square(layout) and layout.group == 1


def _fits_crd(layout: Layout) -> bool:
    return _is_square(layout) and layout.opset >= 11


def _fits_transpose(layout: Layout) -> bool:
    # One unknown size is a -1; more are computed, and onnxruntime multiplies from opset 7 on.
    return layout.dynamic_axes <= 1 or layout.opset >= 7


def _fits_two_step(layout: Layout) -> bool:
    return layout.static is not None


def _fits_col2im(layout: Layout) -> bool:
    return layout.opset >= COL2IM_OPSET and layout.dtype in ("float32", "float16")


def _fits_channels_last(layout: Layout) -> bool:
    # The runs hold the channels of a phase, which with groups do not stand side by side.
    return layout.group == 1 and (layout.static is not None or layout.rank == 1)


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
    split: list[int] | gs.Tensor
    merged: list[int] | gs.Tensor
    if layout.dynamic_axes <= 1:
        sizes = [-1 if size is None else size for size in layout.sizes]
        split = [0, layout.channels, *blocks, *sizes]
        merged = [0, layout.channels] + [
            -1 if size is None else size * stride
            for size, stride in zip(layout.sizes, layout.stride, strict=True)
        ]
    else:
        spatial = emitter.spatial_shape(tensor)
        head = emitter.ints("split", [0, layout.channels, *blocks])
        split = emitter.add("Concat", [head, spatial], axis=0)
        scaled = emitter.add("Mul", [spatial, emitter.ints("stride", layout.stride)])
        front = emitter.ints("merged", [0, layout.channels])
        merged = emitter.add("Concat", [front, scaled], axis=0)
    phased = emitter.reshape(tensor, split)
    moved = emitter.add("Transpose", [phased], "shuffle", perm=order)
    return emitter.reshape(moved, merged)


def _write_two_step(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    sizes = layout.static
    assert sizes is not None
    done = 1  # elements of the axes that are interleaved already
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
    tensor = emitter.reshape(tensor, merged)
    return emitter.add("Transpose", [tensor], perm=front)


def _col2im_crops(layout: Layout) -> bool:
    """Whether the pads of Col2Im do the crop.

    With pads onnxruntime checks every element against the border, at 1.8 times the time. For
    blocks of 2x2 a Slice behind it costs less than that, for larger ones more.
    """
    return layout.stride != (2, 2)


def _write_col2im(emitter: Emitter, tensor: gs.Tensor, layout: Layout) -> gs.Tensor:
    crop = layout.crop if _col2im_crops(layout) else ((0, 0),) * layout.rank
    cropped = [sum(ends) for ends in crop]
    image: gs.Tensor
    if layout.static is not None:
        sizes = zip(layout.static, layout.stride, cropped, strict=True)
        image = emitter.ints("image", [size * stride - crop for size, stride, crop in sizes])
    else:
        spatial = emitter.spatial_shape(tensor)
        image = emitter.add("Mul", [spatial, emitter.ints("stride", layout.stride)])
        if any(cropped):
            image = emitter.add("Sub", [image, emitter.ints("crop", cropped)])
    columns = emitter.reshape(tensor, [0, layout.channels * prod(layout.stride), -1])
    block = emitter.ints("block", layout.stride)
    begins, ends = zip(*crop, strict=True)
    return emitter.add(
        "Col2Im",
        [columns, image, block],
        "shuffle",
        strides=list(layout.stride),
        pads=[*begins, *ends],
    )


SHUFFLES: dict[ShuffleName, Spelling] = {
    "dcr": Spelling(_fits_dcr, _write_dcr, phases_first=True),
    "crd": Spelling(_fits_crd, _write_crd),
    "transpose": Spelling(_fits_transpose, _write_transpose),
    "two-step": Spelling(_fits_two_step, _write_two_step),
    "col2im": Spelling(_fits_col2im, _write_col2im, crops=_col2im_crops),
    "channels-last": Spelling(_fits_channels_last, _write_channels_last, phases_first=True),
}

_PORTABLE: tuple[ShuffleName, ...] = ("dcr", "crd", "transpose")
"""What every runtime has, in the order of preference."""
