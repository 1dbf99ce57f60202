"""Models with pixel shuffles behind a layer: DepthToSpace, or Reshape, Transpose, Reshape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import ModelProto, NodeProto

from tests.build import FLOAT, Array, graph, integers, model, node, tensor, value

SIZES = (5, 6, 3)
CHANNELS = 16
"""What the head makes."""


@dataclass(frozen=True)
class Head:
    """A ConvTranspose, or a Conv of stride 1, from 4 to 16 channels."""

    kernel: tuple[int, ...] = (2, 2)
    stride: tuple[int, ...] = (2, 2)
    pads: int = 0
    group: int = 1
    op: str = "ConvTranspose"
    dilation: int = 1

    @property
    def rank(self) -> int:
        return len(self.kernel)


@dataclass(frozen=True)
class Shuffled:
    """A pixel shuffle; ``spelled`` as Reshape, Transpose, Reshape for one size."""

    order: str
    stride: tuple[int, ...] = (2, 2)
    composite: bool = False


Layer = str | Shuffled
"""Relu, Add (per channel), Conv (1x1 to 8 channels), Up (k2 s2 to 8 channels), or a shuffle."""


class _Writer:
    def __init__(self, head: Head, sizes: Sequence[int | str]) -> None:
        self.head, self.channels = head, CHANNELS
        upsamples = head.op == "ConvTranspose"
        front = (4, CHANNELS // head.group) if upsamples else (CHANNELS, 4 // head.group)
        weight = integers(*front, *head.kernel)
        self.parameters: dict[str, Array] = {"w": weight, "b": integers(CHANNELS, seed=1)}
        self.sizes = [
            size
            if isinstance(size, str)
            else ((size - 1) * s + k if upsamples else size - k + 1 + 4 * head.pads) - 2 * head.pads
            for size, s, k in zip(sizes, head.stride, head.kernel, strict=False)
        ]
        self.nodes: list[NodeProto] = [
            node(
                head.op,
                ["x", "w", "b"],
                ["t0"],
                name="head",
                strides=head.stride,
                pads=[head.pads] * 2 * head.rank,
                group=head.group,
                dilations=[head.dilation] * head.rank,
            )
        ]

    def add(self, layer: Layer, number: int) -> None:
        source, target = f"t{number}", f"t{number + 1}"
        if isinstance(layer, Shuffled):
            self._shuffle(layer, number, source, target)
        elif layer == "Relu":
            self.nodes.append(node("Relu", [source], [target]))
        elif layer == "Add":
            shape = (self.channels, *[1] * self.head.rank)
            self.parameters[f"c{number}"] = integers(*shape, seed=number)
            self.nodes.append(node("Add", [source, f"c{number}"], [target]))
        else:
            self._mix(layer == "Up", number, source, target)

    def _mix(self, up: bool, number: int, source: str, target: str) -> None:
        rank, made = self.head.rank, 8
        given = [f"w{number}", f"b{number}"]
        front = (self.channels, made) if up else (made, self.channels)
        self.parameters[given[0]] = integers(*front, *[2 if up else 1] * rank, seed=number)
        self.parameters[given[1]] = integers(made, seed=number + 7)
        kind, attributes = ("ConvTranspose", {"strides": [2] * rank}) if up else ("Conv", {})
        self.nodes.append(node(kind, [source, *given], [target], name=f"n{number}", **attributes))
        self.channels = made
        self._grow([2 if up else 1] * rank)

    def _grow(self, stride: Sequence[int]) -> None:
        self.sizes = [
            size if isinstance(size, str) else size * step
            for size, step in zip(self.sizes, stride, strict=True)
        ]

    def _shuffle(self, layer: Shuffled, number: int, source: str, target: str) -> None:
        self.channels //= prod(layer.stride)
        name = f"n{number}"
        if not layer.composite:
            block = {"blocksize": layer.stride[0], "mode": layer.order}
            self.nodes.append(node("DepthToSpace", [source], [target], name=name, **block))
            self._grow(layer.stride)
            return
        rank, sizes = self.head.rank, list(self.sizes)
        first = layer.order == "CRD"
        channels = [self.channels]
        split = [*channels, *layer.stride] if first else [*layer.stride, *channels]
        blocks = range(2 if first else 1, 2 + rank if first else 1 + rank)
        order = [0, 1 if first else 1 + rank]
        for axis, block_axis in enumerate(blocks):
            order += [2 + rank + axis, block_axis]
        self._grow(layer.stride)
        self.parameters[f"{name}_split"] = _ints(2, *split, *sizes)
        self.parameters[f"{name}_merged"] = _ints(2, self.channels, *self.sizes)
        self.nodes += [
            node("Reshape", [source, f"{name}_split"], [f"{name}_p"]),
            node("Transpose", [f"{name}_p"], [f"{name}_m"], perm=order),
            node("Reshape", [f"{name}_m", f"{name}_merged"], [target], name=name),
        ]


def _ints(*sizes: int | str) -> Array:
    return np.array(sizes, np.int64)


def behind(
    head: Head, tail: Sequence[Layer], sizes: Sequence[int | str] = SIZES, opset: int = 18
) -> ModelProto:
    """The head and the layers of ``tail`` on integers; x is ``[2, 4, ..]``, the result ``y``."""
    writer = _Writer(head, sizes)
    for number, layer in enumerate(tail):
        writer.add(layer, number)
    writer.nodes[-1].output[0] = "y"
    body = graph(
        writer.nodes,
        [value("x", FLOAT, [2, 4, *sizes[: head.rank]])],
        [value("y", FLOAT, [None] * (head.rank + 2))],
        [tensor(name, array) for name, array in writer.parameters.items()],
    )
    return model(body, opset)
