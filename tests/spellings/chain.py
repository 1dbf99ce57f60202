"""The bricks of the tables: a module made of steps, Convs, and the row itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from tests.spellings.corpus import Family, Shape, Spelling, every_axis

Step = Callable[[Tensor], Tensor]

IMAGE: Shape = (2, 2, 3, 4)
"""``[N, C, H, W]`` of most spellings: sides that differ, and a batch that is not specialised."""
LINE: Shape = (2, 2, 5)
VOLUME: Shape = (2, 2, 2, 3, 2)

_CONVS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Chain(nn.Module):
    """One step after the other; a step is a module or a plain function of a tensor."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = steps
        self.inner = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def conv(
    kernel: int | Shape = 3,
    padding: int | Shape | None = None,
    *,
    channels: tuple[int, int] = (2, 3),
    rank: int = 2,
    **options: Any,
) -> nn.Module:
    """A Conv that keeps the size (odd kernel, dilation 1) unless ``padding`` says otherwise."""
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    return _CONVS[rank](*channels, kernel, padding=padding, **options)


def row(
    family: Family,
    name: str,
    steps: Callable[[], Sequence[Step] | nn.Module],
    stride: Shape | None = (2, 2),
    expect: str | None = "rewritten",
    *,
    inputs: tuple[Shape, ...] = (IMAGE,),
    static_only: bool = False,
    **more: Any,
) -> Spelling:
    """A spelling with every axis but the channels dynamic in its dynamic exports."""

    def build() -> nn.Module:
        made = steps()
        return made if isinstance(made, nn.Module) else Chain(*made)

    dynamic = None if static_only else tuple(every_axis(shape) for shape in inputs)
    rank = len(inputs[0]) - 2
    return Spelling(name, family, build, inputs, dynamic, stride, rank, expect, **more)


def table(family: Family) -> Callable[..., Spelling]:
    """`row` for one family."""
    return partial(row, family)
