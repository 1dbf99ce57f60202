"""A chain at low resolution: convolutions and pointwise layers, then one shuffle and one crop.

    x -> Conv (phases of the site) -> pointwise -> Conv 1x1 (block-diagonal over the phases)
      -> pointwise -> shuffle by the product of all strides -> crop -> y

Behind a QuantizeLinear the shuffle stands between a DequantizeLinear and another QuantizeLinear
of the same scale (`lowering/quantized.py`).

Each convolution leaves its channels as they come, with the phases fastest; what is behind it
knows where they are (`lowering/places.py`). The last one puts them in the order that the shuffle
reads, whatever pixel shuffles have stood behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.options import Shuffle
from deployconv.results import Reason
from deployconv.rewrites.lowering.emit import Emitter
from deployconv.rewrites.lowering.lower import finite, image_of, low_resolution_conv
from deployconv.rewrites.lowering.places import in_order, interleaved, keeps_groups, put, shuffled
from deployconv.rewrites.lowering.plan import Plan
from deployconv.rewrites.lowering.quantized import dequantized, quantized
from deployconv.rewrites.lowering.shuffle import (
    SHUFFLES,
    Layout,
    ShuffleName,
    spelling,
    write_shuffle,
)
from deployconv.rewrites.lowres.chain import Chain
from deployconv.rewrites.lowres.link import Link, MixLink, PointwiseLink, ShuffleLink
from deployconv.rewrites.lowres.quantized import grid_at_end

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


def plan_chain(chain: Chain, head: Plan, asked: Shuffle) -> ChainPlan | None:
    """The plan of ``chain`` with its head in the form ``head``; None where none fits.

    The shuffle that was ``asked`` for gives way to a portable one where it does not fit.
    """
    if head.repeat is not None and not chain.levels:
        return ChainPlan(head, None, head.layout)
    if head.repeat is not None or head.form == "split" or set(chain.stride) == {1}:
        return None
    if chain.mixes:  # what works on blocks of channels stands behind it
        head = replace(head, volume=False)
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
    for level in chain.levels:
        pairs = prod(level.channels) if isinstance(level, MixLink) else 0
        if pairs * phases * phases * level.phases > _LARGEST:
            return None
        phases *= level.phases
    shuffle = spelling(layout, asked)
    if isinstance(shuffle, Reason):
        return None
    made = in_order(chain.head.channels[1], chain.head.stride)
    order = _order(made, chain.links, chain.head.rank, SHUFFLES[shuffle].phases_first)
    return ChainPlan(head, shuffle, layout) if keeps_groups(order, chain.head.group) else None


def lower_chain(chain: Chain, plan: ChainPlan, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The nodes that compute ``chain.output`` from the input of its head.

    Raises ModelError for a weight that is NaN or infinite.
    """
    site = chain.head
    emitter = Emitter(site.scope.opset, fresh)
    phases_first = plan.shuffle is not None and SHUFFLES[plan.shuffle].phases_first
    # Where pixels are repeated in the end, the Conv makes one of each.
    made = in_order(site.channels[1], [form.axis.stride for form in plan.head.axes])
    order = _order(made, chain.links, site.rank, phases_first)
    tensor = low_resolution_conv(emitter, site, plan.head, order)
    places = put(made, order)
    volume = plan.head.volume
    for position, link in enumerate(chain.links):
        if volume and not _fits_any_shape(link):
            tensor, volume = image_of(emitter, plan.head, tensor), False
        if isinstance(link, PointwiseLink):
            tensor = _pointwise(emitter, link, tensor, places)
        elif isinstance(link, ShuffleLink):
            places = shuffled(places, link.stride, link.site.order)
        else:
            made = in_order(link.channels[1], places.shape[1:], link.stride)
            order = _order(made, chain.links[position + 1 :], site.rank, phases_first)
            tensor = _mix(emitter, link, tensor, places, order, site.id)
            places = put(made, order)
    if volume:
        tensor = image_of(emitter, plan.head, tensor)
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


def _order(made: Array, behind: Sequence[Link], rank: int, phases_first: bool) -> Array:
    """Which of the channels that a convolution makes comes first, second, and so on.

    Only the last one, behind which no link mixes channels, has to care.
    """
    if any(isinstance(link, MixLink) for link in behind):
        return made.ravel()
    for link in behind:
        if isinstance(link, ShuffleLink):
            made = shuffled(made, link.stride, link.site.order)
    return interleaved(made, rank, phases_first)


def _fits_any_shape(link: Link) -> bool:
    """Whether the layer has nothing for each channel, so that it need not know where these are."""
    if not isinstance(link, PointwiseLink):
        return False
    plain = link.node.op != "BatchNormalization"
    return plain and all(prod(constant.shape) == 1 for constant in link.constants.values())


def _pointwise(
    emitter: Emitter, link: PointwiseLink, tensor: gs.Tensor, places: Array
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
            inputs.append(emitter.constant("constant", _spread(constant.read(), places)))
    return emitter.add(link.node.op, inputs, **link.node.attrs)


def _spread(values: Array, places: Array) -> Array:
    """One value per channel to each place of the channel, along the axis that has them."""
    axis = int(np.argmax(values.shape))
    spread = np.empty(places.size, values.dtype)
    spread[places.reshape(len(places), -1)] = values.reshape(-1, 1)
    return spread.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])


def _mix(
    emitter: Emitter,
    link: MixLink,
    tensor: gs.Tensor,
    places: Array,
    order: Array,
    name: str,
) -> gs.Tensor:
    """The layer on each phase by itself, as one Conv whose weight is zero between phases.

    Args:
        emitter: what writes the nodes.
        link: the layer.
        tensor: what it reads.
        places: where its channels and phases are in that.
        order: of the output channels, which come with the phases fastest, its own most so.
        name: what errors call the site.
    """
    kernel = link.kernel(finite(link.weight, name))
    c_in, c_out = link.channels
    before = prod(places.shape[1:])
    dense = np.zeros((c_out, before, link.phases, places.size), kernel.dtype)
    for phase, read in enumerate(places.reshape(c_in, before).T):
        dense[:, phase][:, :, read] = kernel.reshape(c_out, link.phases, c_in)
    rank = len(link.stride)
    weight = dense.reshape(-1, places.size, *(1,) * rank)
    inputs = [tensor, emitter.constant("weight", weight[order])]
    if link.bias is not None:
        bias = np.repeat(finite(link.bias, name), before * link.phases)
        inputs.append(emitter.constant("bias", bias[order]))
    return emitter.add("Conv", inputs, kernel_shape=[1] * rank)
