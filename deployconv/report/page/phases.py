"""Colour the taps of a kernel by the phase that they belong to, as grids of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

_MOST_TAPS = 16
"""Taps along an axis of a kernel that is drawn."""
_MOST_PHASES = 16

Taps = Sequence[Sequence[Sequence[int]]]
"""Of one axis: phase -> place in its small kernel -> taps."""


@dataclass(frozen=True)
class Cell:
    """One square: what is written in it, and its colour as a hue; None for a zero."""

    label: str
    hue: int | None


@dataclass(frozen=True)
class Grid:
    """Rows of cells with a heading."""

    title: str
    rows: tuple[tuple[Cell, ...], ...]


def grids(found: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return the kernel and the small kernels of its phases; nothing if it is too large to draw.

    Of a volume the last two axes are drawn, as the first one is split in the same way.
    """
    axes: Sequence[Taps] = found["axes"][-2:]
    if len(axes) == 1:
        axes = ([[[0]]], *axes)
    counts = tuple(map(len, axes))
    taps = tuple(
        1 + max(tap for phase in axis for place in phase for tap in place) for axis in axes
    )
    if max(taps) > _MOST_TAPS or not 1 < prod(counts) <= _MOST_PHASES:
        return ()
    hues = {
        phase: round(360 * place / prod(counts))
        for place, phase in enumerate(product(*map(range, counts)))
    }
    single = all(
        sum(tap in place for phase in axis for place in phase) <= 1
        for axis, count in zip(axes, taps, strict=True)
        for tap in range(count)
    )
    kernel = _kernel(axes, taps, hues) if single else ()
    return (*kernel, *(_small(axes, phase, hue) for phase, hue in hues.items()))


def _kernel(
    axes: Sequence[Taps], taps: Sequence[int], hues: Mapping[tuple[int, ...], int]
) -> tuple[Grid, ...]:
    owners = [
        {tap: number for number, phase in enumerate(axis) for place in phase for tap in place}
        for axis in axes
    ]
    rows = tuple(
        tuple(
            Cell(
                f"{row}{column}" if max(taps) < 10 else "",
                hues.get((owners[0].get(row, -1), owners[1].get(column, -1))),
            )
            for column in range(taps[1])
        )
        for row in range(taps[0])
    )
    return (Grid("kernel", rows),)


def _small(axes: Sequence[Taps], phase: tuple[int, ...], hue: int) -> Grid:
    rows = tuple(
        tuple(_cell(down, across, hue) for across in axes[1][phase[1]])
        for down in axes[0][phase[0]]
    )
    return Grid(f"phase {', '.join(map(str, phase))}", rows)


def _cell(down: Sequence[int], across: Sequence[int], hue: int) -> Cell:
    if not down or not across:
        return Cell("0", None)
    if len(down) == len(across) == 1:
        short = max(*down, *across) < 10
        return Cell(f"{down[0]}{across[0]}" if short else "", hue)
    return Cell(f"+{len(down) * len(across)}", hue)
