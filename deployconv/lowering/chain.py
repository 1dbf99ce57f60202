"""A chain at low resolution: convolutions and pointwise layers, then one shuffle and one crop.

    x -> Conv (phases of the site) -> pointwise -> Conv 1x1 (block-diagonal over the phases)
      -> pointwise -> shuffle by the product of all strides -> crop -> y

Behind a QuantizeLinear the shuffle stands between a DequantizeLinear and another QuantizeLinear
of the same scale (`lowering/quantized.py`).

Channels are kept in the order (channel, phase), the phases of one layer inside those of the
layer before it. The last convolution puts them in the order that the shuffle reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.lowering.emit import Emitter
from deployconv.lowering.lower import finite, low_resolution_conv
from deployconv.lowering.plan import Plan
from deployconv.lowering.quantized import dequantized, quantized
from deployconv.lowering.shuffle import SHUFFLES, Layout, ShuffleName, write_shuffle
from deployconv.lowres.chain import Chain, MixLink, PointwiseLink
from deployconv.lowres.quantized import grid_at_end

Array = NDArray[Any]

_LARGEST = 1 << 24
"""Elements of a block-diagonal weight, above which its zeros cost more than any shuffle."""


@dataclass(frozen=True)
class ChainPlan:
    """The plan of the site at the head, and the shuffle at the end.

    ``shuffle`` is None where the pixels of a 1x1 Conv are repeated instead.
    """

    head: Plan
    shuffle: ShuffleName | None
    layout: Layout

    def resized(self, sizes: Sequence[int]) -> ChainPlan:
        """The same plan for an input of other spatial sizes; what is dynamic stays so."""
        head = self.head.resized(sizes)
        return replace(self, head=head, layout=replace(self.layout, sizes=head.layout.sizes))


def plan_chain(chain: Chain, head: Plan) -> ChainPlan | None:
    """The plan of ``chain`` with its head in the form ``head``; None where none fits."""
    if head.repeat is not None and not chain.mixes:
        return ChainPlan(head, None, head.layout)
    if head.shuffle is None or head.repeat is not None or head.form == "split":
        return None
    later = tuple(
        total // first for total, first in zip(chain.stride, chain.head.stride, strict=True)
    )
    layout = replace(
        head.layout,
        channels=chain.channels,
        stride=chain.stride,
        crop=tuple(
            (begin * step, end * step)
            for (begin, end), step in zip(head.layout.crop, later, strict=True)
        ),
        group=1 if chain.mixes else chain.head.group,
    )
    phases = chain.head.phases
    for mix in chain.mixes:
        if prod(mix.channels) * phases * phases * mix.phases > _LARGEST:
            return None
        phases *= mix.phases
    fits = SHUFFLES[head.shuffle].fits(layout)
    return ChainPlan(head, head.shuffle, layout) if fits else None


def lower_chain(chain: Chain, plan: ChainPlan, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The nodes that compute ``chain.output`` from the input of its head.

    Raises ModelError for a weight that is NaN or infinite.
    """
    site = chain.head
    emitter = Emitter(site.scope.opset, fresh)
    phases_first = plan.shuffle is not None and SHUFFLES[plan.shuffle].phases_first
    remaining = len(chain.mixes)
    levels = [plan.head.layout.stride if plan.shuffle is None else site.stride]
    tensor = low_resolution_conv(emitter, site, plan.head, phases_first and not remaining)
    for link in chain.links:
        last = remaining == 0
        if isinstance(link, PointwiseLink):
            copies = prod(prod(level) for level in levels)
            tensor = _pointwise(emitter, link, tensor, copies, phases_first and last)
            continue
        remaining -= 1
        order = _final_order(levels, link, phases_first) if remaining == 0 else None
        tensor = _mix(emitter, link, tensor, levels, order, site.id)
        levels.append(link.stride)
    grid = grid_at_end(chain)
    if grid is not None:
        tensor = dequantized(emitter, tensor, grid.node)
    if plan.shuffle is not None:
        tensor = write_shuffle(emitter, tensor, plan.shuffle, plan.layout)
    elif plan.head.repeat is not None:
        tensor = emitter.repeat(tensor, plan.head.repeat)
    if grid is not None:
        quantized(emitter, tensor, grid.node)
    return emitter.finish(chain.output)


def _pointwise(
    emitter: Emitter, link: PointwiseLink, tensor: gs.Tensor, copies: int, phases_first: bool
) -> gs.Tensor:
    """The layer on all phases: what it has per channel it has once per phase of the channel."""
    inputs = []
    for position, given in enumerate(link.node.inputs):
        constant = link.constants.get(position)
        if constant is None:
            inputs.append(tensor if given.name else given)
        elif link.node.op != "BatchNormalization" and prod(constant.shape) == 1:
            inputs.append(given)
        else:
            spread = _spread(constant.read(), copies, phases_first)
            inputs.append(emitter.constant("constant", spread))
    return emitter.add(link.node.op, inputs, **link.node.attrs)


def _spread(values: Array, copies: int, phases_first: bool) -> Array:
    """Repeat along the channels: the axis that is longer than 1, or the only one."""
    axis = int(np.argmax(values.shape))
    if phases_first:
        return np.concatenate([values] * copies, axis=axis)
    return np.repeat(values, copies, axis=axis)


def _mix(
    emitter: Emitter,
    link: MixLink,
    tensor: gs.Tensor,
    levels: Sequence[tuple[int, ...]],
    order: Sequence[int] | None,
    name: str,
) -> gs.Tensor:
    """The layer on each phase by itself, as one Conv whose weight is zero between phases.

    Args:
        emitter: what writes the nodes.
        link: the layer.
        tensor: ``[N, C * P, ..]``, the P phases of ``levels`` fastest.
        levels: strides of the layers before.
        order: of the dimensions ``[C_out, levels .., own stride]`` in the output channels;
            None leaves them so.
        name: what errors call the site.
    """
    kernel = link.kernel(finite(link.weight, name))
    c_in, c_out = link.channels
    before = prod(prod(level) for level in levels)
    dense = np.zeros((c_out, before, link.phases, c_in, before), kernel.dtype)
    for phase in range(before):
        dense[:, phase, :, :, phase] = kernel.reshape(c_out, link.phases, c_in)
    split = [size for level in (*levels, link.stride) for size in level]
    order = range(1 + len(split)) if order is None else order
    arranged = dense.reshape(c_out, *split, -1).transpose(*order, 1 + len(split))
    rank = len(link.stride)
    weight = arranged.reshape(-1, c_in * before, *(1,) * rank)
    inputs = [tensor, emitter.constant("weight", weight)]
    if link.bias is not None:
        bias = finite(link.bias, name).reshape(-1, *(1,) * len(split))
        full = np.broadcast_to(bias, (c_out, *split)).transpose(*order)
        inputs.append(emitter.constant("bias", full.reshape(-1)))
    return emitter.add("Conv", inputs, kernel_shape=[1] * rank)


def _final_order(levels: Sequence[tuple[int, ...]], link: MixLink, phases_first: bool) -> list[int]:
    """Axis by axis, the phases of all layers, coarse to fine; in front of or behind C_out."""
    rank = len(link.stride)
    phases = [1 + level * rank + axis for axis in range(rank) for level in range(len(levels) + 1)]
    return [*phases, 0] if phases_first else [0, *phases]
