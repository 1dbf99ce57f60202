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

A new shuffle is one function that writes it, in `shuffle_nodes`, and one row of `SHUFFLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match.operators import Ranked
from deployconv.options import Shuffle as ShuffleOption
from deployconv.restrictions import ChannelOrder, Restrictions
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.channel_layout import prime_factors, shuffle_order
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.phase_joins import (
    concat_operators,
    join_by_concat,
    join_by_masks,
    mask_operators,
    write_concat,
    write_masks,
)
from deployconv.rewrites.shuffle_nodes import (
    col2im_crops,
    write_by_axis,
    write_channels_last,
    write_col2im,
    write_crd,
    write_crd_steps,
    write_crop,
    write_dcr,
    write_dcr_steps,
    write_transpose,
    write_two_step,
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


def _fits_steps(layout: Layout) -> bool:
    return _is_square(layout) and len(prime_factors(layout.stride[0])) > 1


def _is_square(layout: Layout) -> bool:
    return layout.rank == 2 and len(set(layout.stride)) == 1


def _fits_dcr(layout: Layout) -> bool:
    return _is_square(layout) and layout.group == 1


def _fits_channels_last(layout: Layout) -> bool:
    # A run holds all channels of a phase; with groups these are not side by side.
    dynamic = layout.rank == 1 and layout.reshapes
    return layout.group == 1 and (layout.static is not None or dynamic)


_ROWS = (
    Shuffle(
        "dcr",
        write_dcr,
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
        write_crd,
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
        write_dcr_steps,
        operators=_depth_to_space,
        channel_order="DCR",
        fits=lambda layout: _fits_dcr(layout) and _fits_steps(layout),
        steps=True,
    ),
    Shuffle(
        "crd-steps",
        write_crd_steps,
        operators=_depth_to_space,
        fits=_fits_steps,
        min_opset=11,
        steps=True,
    ),
    Shuffle(
        "transpose",
        write_transpose,
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
        write_two_step,
        needs_static=True,
        search_rank=1,
        integer_rank=1,
        quicker_than_general=True,
    ),
    Shuffle(
        "col2im",
        write_col2im,
        min_opset=18,
        dtypes=frozenset({"float32", "float16"}),
        crops=col2im_crops,
        search_rank=0,
        fused_rank=0,
        quickest_fused=True,
        suits_one_axis=True,
        suits_split=True,
        plain_memory=True,
    ),
    Shuffle(
        "channels-last",
        write_channels_last,
        channel_order="DCR",
        fits=_fits_channels_last,
        search_rank=-1,
        integer_rank=0,
        integers_only=True,
    ),
    Shuffle(
        "by-axis",
        write_by_axis,
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
