"""The arithmetic by itself, against its definition."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from deployconv.polyphase import (
    Axis,
    Polyphase,
    kernel_after_shuffle,
    matrix,
    multiplications,
    phase_weights,
    smallest_kernel,
    without_crop,
    without_shift,
)


def axes() -> Iterator[Axis]:
    """Transposed axes of every stride, kernel, dilation, pads and output padding up to small."""
    for stride, taps, dilation, begin, end, more in product(
        range(1, 5), range(1, 6), range(1, 4), (0, 1, 3, 9), (0, 2, 9), (0, 1)
    ):
        yield Axis.transposed(stride, taps, dilation, (begin, end), more)


def forms() -> Iterator[Polyphase]:
    for axis in axes():
        yield smallest_kernel(axis)
        yield without_crop(axis)
        yield from (Polyphase.of(axis, shift) for shift in range(axis.stride))


def test_every_form_crops_to_the_size_of_the_layer() -> None:
    for form in forms():
        begin, end = form.crop
        assert min(begin, end, *form.pads) >= 0
        for size in (1, 2, 7):
            rows = size + form.rows
            assert rows == size + sum(form.pads) - form.span + 1
            assert form.axis.stride * rows - begin - end == form.axis.output_size(size)


def test_every_tap_stands_where_the_definition_puts_it() -> None:
    """Output o = s*m + q - shift takes tap t from input m + low + place, as o + p - d*t says."""
    for form in forms():
        where, axis = form.tap_at(), form.axis
        assert where.shape == (axis.stride, form.span, axis.taps)
        for phase, place, tap in zip(*np.nonzero(where), strict=True):
            row = 100
            output = axis.stride * row + phase - form.shift
            source = row + form.low + place
            assert axis.stride * source == output + axis.origin + axis.step * tap


def test_no_tap_is_lost() -> None:
    for form in forms():
        assert form.tap_at().sum(axis=(0, 1)).tolist() == [1] * form.axis.taps


def test_the_taps_of_an_inverse_fourier_transform_are_found_at_once() -> None:
    start = time.process_time()
    form = smallest_kernel(Axis.transposed(256, 1024, 1, (256, 256), 0))
    assert form.tap_at().sum() == 1024
    assert time.process_time() - start < 5  # trying every phase with every tap takes 20 s


def test_the_smallest_kernel_spans_what_one_phase_needs() -> None:
    for stride, taps in product(range(1, 6), range(1, 12)):
        axis = Axis.transposed(stride, taps, 1, (0, 0), 0)
        assert smallest_kernel(axis).span == -(-taps // stride)


def test_without_shift_nothing_is_cropped_in_front() -> None:
    for axis in axes():
        form = without_shift(axis)
        # But for whole rows, where the pads are larger than the kernel's reach.
        assert form.shift % axis.stride == 0


def test_without_crop_less_than_a_stride_is_left_over_at_the_end() -> None:
    for axis in axes():
        begin, end = without_crop(axis).crop
        assert begin == 0
        assert end == -axis.extra % axis.stride


@pytest.mark.parametrize(
    ("taps", "stride", "pad", "crop", "padded"),
    [(4, 2, 1, 4, 9), (2, 2, 0, 1, 1), (9, 3, 4, 9, 16), (8, 4, 2, 4, 9)],
)
def test_multiplications_of_both_forms(
    taps: int, stride: int, pad: int, crop: int, padded: int
) -> None:
    """Taps of the low-resolution Conv, over both axes; k4 s2 p1: 2x2 and a crop, or 3x3."""
    axis = Axis.transposed(stride, taps, 1, (pad, pad), 0)
    assert multiplications([smallest_kernel(axis)] * 2) == stride**2 * crop
    assert multiplications([without_shift(axis)] * 2) == stride**2 * padded


@pytest.mark.parametrize("fill", [0, 7])
def test_a_place_without_a_tap_holds_the_zero_point(fill: int) -> None:
    weight = np.full((1, 1, 2), 3, np.uint8)
    form = smallest_kernel(Axis.transposed(3, 2, 1, (0, 0), 0))
    phased = phase_weights(weight, [form], fill)
    assert phased.dtype == np.uint8
    assert sorted(phased.ravel().tolist()) == sorted([3, 3, fill])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 2, 3, 5])
def test_a_conv_behind_a_shuffle_is_an_upsampling_layer(
    stride: int, dilation: int, taps: int
) -> None:
    """Phase by phase its matrix is that of a Conv, taken apart by what each column reads."""
    size, weight = 13, np.arange(1.0, taps + 1)
    kernel = kernel_after_shuffle(weight.reshape(1, 1, taps), [stride], [dilation])
    assert kernel.shape == (1, stride, dilation * (taps - 1) + stride)
    for pads in product((0, 1, 4), (0, 2, 5)):
        conv = matrix(
            Axis(1, taps, dilation, -pads[0], sum(pads) - dilation * (taps - 1)),
            weight,
            stride * size,
        )
        axis = Axis.after_shuffle(stride, taps, dilation, pads)
        assert axis.output_size(size) == len(conv)
        for phase in range(stride):
            found = matrix(axis, kernel[0, phase], size)
            np.testing.assert_array_equal(found, conv[:, phase::stride])


def test_the_phases_are_fastest_in_the_channels_of_such_a_kernel() -> None:
    weight = np.arange(1, 1 + 2 * 3 * 2 * 1).reshape(2, 3, 2, 1)
    kernel = kernel_after_shuffle(weight, [2, 3], [1, 1]).reshape(2, 3, 2, 3, 3, 3)
    assert kernel.shape[-2:] == (3, 3)
    for out, channel, down, right, tap in product(range(2), range(3), range(2), range(3), range(2)):
        value = kernel[out, channel, down, right, tap + 1 - down, 2 - right]
        assert value == weight[out, channel, tap, 0]
    assert np.count_nonzero(kernel) == 6 * weight.size
