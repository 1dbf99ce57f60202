"""The one idea: every upsampling layer is a polyphase convolution. Integers and NumPy only.

Per spatial axis, an upsampling layer of stride ``s`` relates an output index ``o``, a kernel
tap ``t`` and an input index ``i``::

    ConvTranspose (pad p, dilation d)        i = (o + p - d*t) / s        only where it divides
    zero insertion, Conv (pad p, dil. d)     i = (o - p + d*t) / s        only where it divides
    nearest Resize, Conv (pad p, dil. d)     i = floor((o - p + d*t) / s) every tap

All three are ``(o + origin + step*t) / s``. Write ``o + shift = s*m + q`` with phase ``q`` in
``[0, s)``: each tap of phase ``q`` then reads ``x[m + offset(q, t)]``, so phase ``q`` is an
ordinary stride-1 convolution of the low-resolution input. The phases become output channels
of ONE Conv; a shuffle moves them into space and a crop removes ``shift``::

    x ----> Conv (span taps, s phases as channels) ----> shuffle ----> crop ----> y
    [I]     [s * (I + rows)]                             [s*(I+rows)]  [s*I + extra]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Axis:
    """One spatial axis: output ``o`` and tap ``t`` read input ``(o + origin + step*t) / stride``.

    Attributes:
        stride: upsampling factor ``s``, at least 1.
        taps: kernel size ``k``, at least 1.
        step: change of the numerator from one tap to the next; never 0.
        origin: the numerator at ``o = t = 0``.
        extra: output size minus ``s`` times input size; the same for every input size.
        hold: True if the division rounds down (nearest Resize: every tap reads something);
            False if a remainder reads a zero (ConvTranspose, zero insertion).
        edge: True if what is read beyond the input is its nearest element, False if it is zero.
    """

    stride: int
    taps: int
    step: int
    origin: int
    extra: int
    hold: bool = False
    edge: bool = False

    @classmethod
    def transposed(
        cls, stride: int, taps: int, dilation: int, pads: tuple[int, int], output_padding: int
    ) -> Axis:
        """The axis of a ConvTranspose: output size ``s*(I-1) + op + d*(k-1) + 1 - pb - pe``."""
        begin, end = pads
        extra = output_padding + dilation * (taps - 1) + 1 - begin - end - stride
        return cls(stride, taps, -dilation, begin, extra)

    @classmethod
    def after_shuffle(cls, stride: int, taps: int, dilation: int, pads: tuple[int, int]) -> Axis:
        """The axis of a Conv after a pixel shuffle, for a layer that reads the tensor before it.

        That layer is a ConvTranspose with the phases as channels, see `kernel_after_shuffle`.
        """
        begin, end = pads
        reach = dilation * (taps - 1)
        return cls(stride, reach + stride, 1, 1 - stride - begin, begin + end - reach)

    def output_size(self, input_size: int) -> int:
        """Output elements for ``input_size`` input elements."""
        return self.stride * input_size + self.extra

    def offset(self, shift: int, phase: int, tap: int) -> int | None:
        """Input offset that ``tap`` reads for ``phase``; None if it reads an inserted zero."""
        offset, remainder = divmod(phase - shift + self.origin + self.step * tap, self.stride)
        return offset if self.hold or remainder == 0 else None


@dataclass(frozen=True)
class Polyphase:
    """One axis as a low-resolution convolution: which taps, how padded, how cropped.

    Attributes:
        axis: the axis that this computes.
        shift: elements cropped at the front after the shuffle.
        low: the smallest input offset that any tap reads.
        span: taps of the low-resolution Conv.
        rows: low-resolution Conv outputs minus input elements.
        crop_end: elements cropped at the back after the shuffle.
    """

    axis: Axis
    shift: int
    low: int
    span: int
    rows: int
    crop_end: int

    @classmethod
    def of(cls, axis: Axis, shift: int) -> Polyphase:
        """The polyphase form with at least ``shift`` elements to crop at the front."""
        # Offsets grow or fall with the tap, so the first and the last tap have the extremes.
        # For each phase a tap reads from floor(first / s) to ceil(first / s), or only the latter.
        first = [axis.origin + axis.step * tap - shift for tap in (0, axis.taps - 1)]
        high = max(-(-numerator // axis.stride) for numerator in first)
        low = min(
            numerator // axis.stride if axis.hold else -(-numerator // axis.stride)
            for numerator in first
        )
        if low > 0:
            # Conv has no negative padding: start `low` rows earlier and crop them.
            return cls.of(axis, shift + axis.stride * low)
        rows = max(-((-axis.extra - shift) // axis.stride), -high)
        crop_end = axis.stride * rows - shift - axis.extra
        return cls(axis, shift, low, high - low + 1, rows, crop_end)

    @property
    def reach(self) -> tuple[int, int]:
        """Elements that are read beyond the input, (begin, end), never negative."""
        return -self.low, self.rows + self.low + self.span - 1

    @property
    def pads(self) -> tuple[int, int]:
        """Zero padding of the low-resolution Conv, (begin, end)."""
        return (0, 0) if self.axis.edge else self.reach

    @property
    def edge_pads(self) -> tuple[int, int]:
        """Padding of the low-resolution input by its nearest element, (begin, end)."""
        return self.reach if self.axis.edge else (0, 0)

    @property
    def crop(self) -> tuple[int, int]:
        """Elements to remove after the shuffle, (begin, end)."""
        return self.shift, self.crop_end

    @property
    def identity(self) -> bool:
        """True if nothing is cropped after the shuffle."""
        return self.crop == (0, 0)

    @property
    def sums(self) -> bool:
        """True if several taps read the same input offset, so that their weights are added."""
        return bool((self.tap_at().sum(axis=-1, dtype=np.int64) > 1).any())

    def taps_needed(self, phase: int) -> tuple[int, int]:
        """The first and last tap of the low-resolution kernel that ``phase`` needs by itself.

        At least one tap is needed, and those that only a negative padding could leave out.
        """
        used = np.flatnonzero(self.tap_at()[phase].any(-1))
        begin, end = self.reach
        first, last = (used[0], used[-1]) if used.size else (begin, begin)
        first = min(int(first), begin, self.span - 1)
        return first, min(max(int(last), first, self.span - 1 - end), self.span - 1)

    def tap_at(self) -> Array:
        """Which taps each low-resolution tap adds up: a 0/1 array ``[phase, span, k]``."""
        where = np.zeros((self.axis.stride, self.span, self.axis.taps), dtype=np.int8)
        for tap in range(self.axis.taps):
            first = self.axis.origin + self.axis.step * tap - self.shift
            phases = np.arange(self.axis.stride)
            if not self.axis.hold:
                phases = phases[(phases + first) % self.axis.stride == 0]
            where[phases, (phases + first) // self.axis.stride - self.low, tap] = 1
        return where


def smallest_kernel(axis: Axis) -> Polyphase:
    """The polyphase form with the fewest taps; of these, the one that crops least."""
    forms = [Polyphase.of(axis, shift) for shift in range(axis.stride)]
    return min(forms, key=lambda form: (form.span, sum(form.crop), form.shift))


def without_shift(axis: Axis) -> Polyphase:
    """The polyphase form that crops nothing at the front: the union of all phases' taps."""
    return Polyphase.of(axis, 0)


def without_crop(axis: Axis) -> Polyphase:
    """The polyphase form that crops nothing, if the output is a multiple of the stride.

    Taps of zero take the place of what others crop. If it is no such multiple, the form crops less
    than a stride at the end.
    """
    form, rows = Polyphase.of(axis, 0), -(-axis.extra // axis.stride)
    moved = form.shift // axis.stride  # rows in front that a Conv without negative pads makes
    low, high = min(0, form.low + moved), form.low + moved + form.span - 1
    span = max(high - low + 1, 1 - rows - low)
    return Polyphase(axis, 0, low, span, rows, axis.stride * rows - axis.extra)


def phase_weights(weight: Array, axes: Sequence[Polyphase], fill: Array | int = 0) -> Array:
    """Arrange a kernel by phases.

    Args:
        weight: ``[C_out, C_in/group, k_1 .. k_n]``, in correlation layout.
        axes: the polyphase form of each spatial axis.
        fill: value of a low-resolution tap that adds up none, or one value for each of
            ``C_out`` (the zero point of an integer weight).

    Returns:
        ``[C_out, s_1 .. s_n, C_in/group, span_1 .. span_n]``, of the dtype of ``weight``.
        Several taps with one input offset (nearest Resize) are added in float64 and rounded
        once; every other element is a copy, bit for bit.
    """
    summed = any(form.sums for form in axes)
    phased = weight.astype(np.float64) if summed else weight
    for form in axes:
        # The first kernel axis left becomes a pair (phase, low-resolution tap) at the end.
        phased = np.moveaxis(phased, 2, -1)
        where = form.tap_at()
        if summed:
            phased = phased @ where.reshape(-1, form.axis.taps).T.astype(np.float64)
            phased = phased.reshape(*phased.shape[:-1], form.axis.stride, form.span)
        else:
            missing = np.empty((*phased.shape[:-1], 1), dtype=phased.dtype)
            missing[...] = np.reshape(fill, (-1, *[1] * (phased.ndim - 1)))
            tap = np.where(where.any(-1), where.argmax(-1), form.axis.taps)
            phased = np.concatenate([phased, missing], axis=-1)[..., tap]
    rank = len(axes)
    # Now [C_out, C_in/group, s_1, span_1, .., s_n, span_n].
    phase_axes = [2 + 2 * axis for axis in range(rank)]
    place_axes = [3 + 2 * axis for axis in range(rank)]
    ordered = phased.transpose(0, *phase_axes, 1, *place_axes)
    return np.ascontiguousarray(ordered.astype(weight.dtype, copy=False))


def kernel_after_shuffle(weight: Array, stride: Sequence[int], dilation: Sequence[int]) -> Array:
    """The kernel of a Conv after a pixel shuffle, for a layer that reads the tensor before it.

    Output ``o`` reads pixel ``o - p + d*t`` of the shuffled image, which is phase ``q`` of input
    ``i = (o - p + d*t - q) / s``: a tap ``d*t + s - 1 - q`` of channel ``(c, q)``.

    Args:
        weight: ``[C_out, C, k_1 .. k_n]``, in correlation layout.
        stride: ``s_1 .. s_n`` of the shuffle.
        dilation: ``d_1 .. d_n`` of the Conv.

    Returns:
        ``[C_out, C * s_1 * .. * s_n, d_1*(k_1-1)+s_1 ..]``, for `Axis.after_shuffle`; the phases
        are fastest in its channels.
    """
    rank = len(stride)
    for steps, spread in zip(stride, dilation, strict=True):
        # The first kernel axis left becomes a pair (phase, tap) at the end.
        weight = np.moveaxis(weight, 2, -1)
        reach = spread * (weight.shape[-1] - 1)
        taps = np.zeros((*weight.shape[:-1], steps, reach + steps), weight.dtype)
        for phase in range(steps):
            first = steps - 1 - phase
            taps[..., phase, first : first + reach + 1 : spread] = weight
        weight = taps
    phases = [2 + 2 * axis for axis in range(rank)]
    ordered = weight.transpose(0, 1, *phases, *(axis + 1 for axis in phases))
    return ordered.reshape(len(weight), -1, *ordered.shape[2 + rank :])


def matrix(axis: Axis, taps: Array, size: int) -> Array:
    """The polyphase matrix of an axis: the weight of each of ``size`` inputs in each output.

    Args:
        axis: the axis.
        taps: the kernel along it, ``[k]``, in correlation layout.
        size: input elements.

    Returns:
        ``[s * size + extra, size]``, of the dtype of ``taps``, which are added in float64 and
        rounded once if several meet. Rows ``q, s + q, 2 * s + q ..`` are phase ``q``.
    """
    outputs = np.arange(axis.output_size(size))
    made = np.zeros((len(outputs), size))
    for tap, value in enumerate(taps):
        read, remainder = np.divmod(outputs + axis.origin + axis.step * tap, axis.stride)
        if axis.edge:
            read = read.clip(0, size - 1)
        reads = (read >= 0) & (read < size) & ((remainder == 0) | axis.hold)
        made[outputs[reads], read[reads]] += float(value)
    return made.astype(taps.dtype)


def multiplications(axes: Sequence[Polyphase]) -> int:
    """Multiplications per low-resolution pixel and pair of channels, borders not counted."""
    return prod(form.axis.stride * form.span for form in axes)


def split_multiplications(axes: Sequence[Polyphase]) -> int:
    """Multiplications per low-resolution pixel and pair of channels, with one Conv per phase."""
    return prod(
        sum(last - first + 1 for first, last in map(form.taps_needed, range(form.axis.stride)))
        for form in axes
    )
