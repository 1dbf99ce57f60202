"""The committed picture is the one that the script draws, and what it shows is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from scripts.draw_phases import (
    AXIS,
    COLOURS,
    FIGURE,
    FORM,
    SIZE,
    Cell,
    channel_cell,
    colour,
    draw,
    input_cell,
    kernel_cell,
    output_cell,
    shuffled_cell,
    spread_cell,
)

OUTPUT = AXIS.output_size(SIZE)


def cells(cell: Callable[[int, int], Cell], size: int) -> Iterator[tuple[tuple[int, int], Cell]]:
    for at in np.ndindex(size, size):
        yield (at[0], at[1]), cell(*at)


def traced(cell: Callable[[int, int], Cell], size: int) -> list[tuple[int, int]]:
    return [at for at, shown in cells(cell, size) if shown.traced]


def test_committed_figure_is_up_to_date() -> None:
    assert FIGURE.read_text(encoding="utf-8") == draw()


def test_traced_pixel_is_the_example_of_the_question() -> None:
    # "Output blue pixel (0, 1) is computed from input pixels (0, 1), (0, 2), (1, 1), (1, 2)".
    assert traced(output_cell, OUTPUT) == [(0, 1)]
    assert colour(0, 1) == "blue"
    assert traced(input_cell, SIZE) == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_both_ways_multiply_the_same_taps_for_the_traced_pixel() -> None:
    spread = [shown for _, shown in cells(spread_cell, OUTPUT + AXIS.taps - 1) if shown.traced]
    small = [
        shown
        for channel in COLOURS
        for _, shown in cells(partial(kernel_cell, channel), FORM.span)
        if shown.traced
    ]
    assert spread == small
    assert [shown.label for shown in small] == ["01", "03", "21", "23"]
    assert {shown.kind for shown in small} == {"blue"}


def test_the_small_kernels_hold_every_tap_once() -> None:
    labels = [
        shown.label
        for channel in COLOURS
        for _, shown in cells(partial(kernel_cell, channel), FORM.span)
    ]
    assert sorted(labels) == [f"{row}{column}" for row, column in np.ndindex(4, 4)]


def test_shuffled_channels_are_the_output_behind_the_crop() -> None:
    begin, _ = FORM.crop
    for (row, column), shown in cells(output_cell, OUTPUT):
        assert shuffled_cell(row + begin, column + begin) == shown
    whole = [shown for _, shown in cells(shuffled_cell, OUTPUT + sum(FORM.crop))]
    assert sum("cropped" in shown.kind for shown in whole) == len(whole) - OUTPUT**2


def test_a_kernel_and_its_channel_have_one_colour() -> None:
    for channel in COLOURS:
        kernel = {shown.kind for _, shown in cells(partial(kernel_cell, channel), FORM.span)}
        rows = SIZE + FORM.rows
        image = {shown.kind.split()[0] for _, shown in cells(partial(channel_cell, channel), rows)}
        assert kernel == image
        assert len(kernel) == 1
