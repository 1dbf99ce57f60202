"""A chain: the layers after an upsampling layer, run before its shuffle on phases as channels.

    layer -> Relu -> ConvTranspose k = s -> Sigmoid        becomes
    Conv -> Relu -> Conv 1x1 (block-diagonal over the phases) -> Sigmoid -> one shuffle -> crop

The shuffle is a permutation of positions. A pointwise layer does not see positions; a 1x1 Conv, or
a ConvTranspose whose kernel is its stride, works on each pixel alone. Either can run on every phase
while the phases still are channels. A pixel shuffle among them is joined with the one at the end.
What mixes neighbours ends the chain, and so does a tensor that something else reads.

Each convolution puts its channels in any order, and the steps after it know where they are
(`channel_layout`). The last one puts them in the order that the shuffle reads.

Runtimes make an integer Conv of DequantizeLinear, Conv, QuantizeLinear if these stand side by side.
So a QuantizeLinear runs before the shuffle, and the DequantizeLinear after it stays with the next
layer. The shuffle then stands between a DequantizeLinear and another QuantizeLinear of the same
scale, which gives back the same integers:

    Conv -> QuantizeLinear -> DequantizeLinear -> shuffle -> QuantizeLinear

onnxruntime makes an integer Conv of the left part and moves integers in the right one, signed or
unsigned. Without the inner pair it runs the Conv in float if the integers are signed, and TensorRT
takes no DepthToSpace of unsigned ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.view import View
from deployconv.match import Original, ShuffleSite, UpsampleSite
from deployconv.match.operators import Operators
from deployconv.options import Shuffle
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.base import Summary, Trial
from deployconv.rewrites.channel_layout import (
    in_order,
    keeps_groups,
    reordered,
    shuffle_order,
)
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.conv_emit import image_of, low_resolution_conv
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.neighbours import only_reader
from deployconv.rewrites.shuffles import channel_order, choose_shuffle, write_shuffle
from deployconv.rewrites.site_on_integers import SiteOnIntegers, draws_for
from deployconv.rewrites.steps.base import ChainStep
from deployconv.rewrites.steps.pixel_conv import mixing_conv_at
from deployconv.rewrites.steps.pixel_shuffle import PixelShuffle, pixel_shuffle_at
from deployconv.rewrites.steps.pixelwise import pointwise_at
from deployconv.rewrites.trial import build_trial, trial_sizes

if TYPE_CHECKING:
    from deployconv.graph.scope import Scope

Array = NDArray[Any]

ChainScope = Literal["quantize", "pointwise", "chain"]
"""How far a chain goes: to the first QuantizeLinear, to the first layer that mixes channels, or as
far as it can."""

_LARGEST_WEIGHT = 1 << 24
"""Elements of a block-diagonal weight above which its zeros cost more than any shuffle."""


@dataclass(frozen=True, eq=False)
class Chain:
    """An upsampling layer and the steps after it, with one shuffle at the end.

    Attributes:
        head: the layer.
        steps: in graph order.
        shuffle: at the end; None if the pixels of a 1x1 Conv are repeated instead.
        layout: what the shuffle moves.
        summary: what reports show.
    """

    head: PolyphaseConv
    steps: tuple[ChainStep, ...]
    shuffle: ShuffleName | None
    layout: Layout
    summary: Summary

    @property
    def scope(self) -> Scope:
        return self.head.scope

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (*self.head.nodes, *(node for step in self.steps for node in step.nodes))

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.steps[-1].output,)

    @property
    def operators(self) -> Operators:
        """The operators of its head, for the rules of a target."""
        return self.head.operators

    def emit(self, emitter: Emitter) -> None:
        head = self.head
        # If pixels are repeated in the end, the Conv makes one of each.
        layout = in_order(head.site.channels[1], [form.axis.stride for form in head.axes])
        order = self._order_after(self.steps, layout)
        tensor = low_resolution_conv(emitter, head, order)
        layout = reordered(layout, order)
        volume = head.volume
        for at, step in enumerate(self.steps, start=1):
            if volume and not step.takes_volume:
                tensor, volume = image_of(emitter, head, tensor), False
            later = partial(self._order_after, self.steps[at:])
            tensor, layout = step.emit_on_channels(emitter, tensor, layout, later, head.site.id)
        if volume:
            tensor = image_of(emitter, head, tensor)
        quantize = self._quantize_at_end()
        if quantize is not None:
            tensor = emitter.add("DequantizeLinear", [tensor, *quantize.inputs[1:]])
        if self.shuffle is not None:
            tensor = write_shuffle(emitter, tensor, self.shuffle, self.layout)
        elif head.repeat is not None:
            tensor = emitter.repeat(tensor, head.repeat)
        if quantize is not None:
            # The values are on its grid already: these are exactly the integers from before.
            emitter.add("QuantizeLinear", [tensor, *quantize.inputs[1:]], **quantize.attrs)
        emitter.finish(self.outputs[0])

    def at_sizes(self, sizes: Sequence[int]) -> Chain:
        """The same rewrite for an input of other spatial sizes; what is dynamic stays so."""
        head = self.head.at_sizes(sizes)
        return replace(self, head=head, layout=replace(self.layout, sizes=head.layout.sizes))

    def trial(self, rng: np.random.Generator) -> Trial:
        head = self.head.with_float_weights()
        original = _bound_to_shuffles(head.site, self.steps)
        macs = max(head.macs.before, head.macs.after)
        sizes = trial_sizes(head.site, head.axes, macs, original)
        own = SiteOnIntegers.of(head.site)
        draws = draws_for([own], self.steps, rng)
        drawn = own.draw(draws)
        steps = tuple(step.on_integers(draws, ()) for step in self.steps)
        nodes, constants = list(drawn.nodes), dict(drawn.constants)
        for old, step in zip(self.steps, steps, strict=True):
            encoded = _original_of(head.site, old) if isinstance(old, PixelShuffle) else None
            if encoded is not None:
                nodes += encoded.nodes
                constants |= encoded.constants
            else:
                nodes += [OnnxExporter.export_node(node) for node in step.nodes]
            constants |= step.values
        missed = [self.scope.label(node) for step in steps for node in step.parity_only]
        x = draws.image(head.site.input_shape(original, sizes))
        rewrite = replace(self, head=head.on(drawn.site, head.layout.channels), steps=steps)
        return build_trial(
            rewrite.at_sizes(sizes),
            nodes,
            constants,
            {head.site.input: x},
            [*drawn.parity_only, *missed],
            draws.exact,
            self.layout.batch,
        )

    def _order_after(self, steps: Sequence[ChainStep], layout: Array) -> Array:
        """The order in which a convolution before ``steps`` puts its output channels.

        Only the last convolution must put them in the order that the shuffle reads.
        """
        if any(step.mixes_channels for step in steps):
            return layout.ravel()
        for step in steps:
            layout = step.order_after(layout)
        rank = self.head.site.rank
        if self.shuffle is None:
            return shuffle_order(layout, rank, "CRD")
        return channel_order(self.shuffle, layout, rank)

    def _quantize_at_end(self) -> gs.Node | None:
        """The QuantizeLinear that ends the chain, pixel shuffles after it aside."""
        for step in reversed(self.steps):
            if step.stride is None:
                return step.node if step.quantizes else None
            if step.mixes_channels:
                break
        return None


def chain_after(
    head: PolyphaseConv,
    view: View,
    fusion: ChainScope,
    shuffle: Shuffle = "auto",
    shuffles: Collection[ShuffleSite] = (),
    excluded: Collection[int] = (),
) -> Chain | None:
    """The longest chain after ``head`` that can be written; None if no layer joins it.

    Args:
        head: the upsampling layer.
        view: the model that it was found in.
        fusion: how far the chain goes.
        shuffle: the one to end in; it gives way to a portable one if it does not fit.
        shuffles: pixel shuffles that may join.
        excluded: ids of nodes that may not be taken in.
    """
    if head.site.tail:
        return None
    steps = _steps_after(head.site, view, fusion == "chain", shuffles, excluded)
    while steps:
        cut = _to_first_quantize(steps) if fusion == "quantize" else _without_dequantize(steps)
        chain = _planned(head, cut, shuffle) if cut else None
        if chain is not None:
            return chain
        steps = _before_last_level(steps)
    return None


def _steps_after(
    site: UpsampleSite,
    view: View,
    mixing: bool,
    shuffles: Collection[ShuffleSite],
    excluded: Collection[int],
) -> tuple[ChainStep, ...]:
    """The steps of the longest chain; without ``mixing`` it ends before the first mixing layer."""
    steps: list[ChainStep] = []
    tensor, channels = site.nodes[-1].outputs[0], site.channels[1]
    while True:
        step = pixel_shuffle_at(tensor, channels, site, shuffles) or _step_at(
            tensor, channels, site, view
        )
        if step is None or (step.mixes_channels and not mixing) or id(step.node) in excluded:
            break
        steps.append(step)
        tensor, channels = step.node.outputs[0], step.channels_after(channels)
    while steps and not _run_together(site, steps):
        steps.pop()
    return tuple(steps)


def _step_at(tensor: gs.Tensor, channels: int, site: UpsampleSite, view: View) -> ChainStep | None:
    scope = site.scope
    node = only_reader(tensor, scope)
    if node is None:
        return None
    if node.op in ("Conv", "ConvTranspose"):
        return mixing_conv_at(node, scope, view) if node.inputs[0] is tensor else None
    return pointwise_at(node, tensor, channels, site, view)


def _planned(head: PolyphaseConv, steps: tuple[ChainStep, ...], asked: Shuffle) -> Chain | None:
    """The chain of ``head`` and ``steps``; None if it cannot be written."""
    levels = [step for step in steps if step.stride is not None]
    strides = [head.site.stride, *(step.stride for step in levels if step.stride is not None)]
    stride = tuple(prod(along) for along in zip(*strides, strict=True))
    if head.repeat is not None and not levels:
        return Chain(head, steps, None, head.layout, replace(head.summary, shuffle=None))
    if head.repeat is not None or head.form == "split" or set(stride) == {1}:
        return None
    mixes = any(step.mixes_channels for step in steps)
    if mixes:  # what computes in blocks of channels comes after it
        head = replace(head, volume=False)
    channels, phases = head.site.channels[1], head.site.phases
    for step in levels:
        if step.weight_elements(phases) > _LARGEST_WEIGHT:
            return None
        phases *= prod(step.stride or ())
        channels = step.channels_after(channels)
    later = [total // first for total, first in zip(stride, head.site.stride, strict=True)]
    layout = replace(
        head.layout,
        channels=channels,
        stride=stride,
        crop=tuple(
            (begin * step, end * step)
            for (begin, end), step in zip(head.layout.crop, later, strict=True)
        ),
        group=1 if mixes else head.site.group,
    )
    shuffle = choose_shuffle(layout, asked)
    if isinstance(shuffle, Reason):
        return None
    chain = Chain(head, steps, shuffle, layout, replace(head.summary, shuffle=shuffle))
    order = chain._order_after(steps, in_order(head.site.channels[1], head.site.stride))
    return chain if keeps_groups(order, head.site.group) else None


def _to_first_quantize(steps: tuple[ChainStep, ...]) -> tuple[ChainStep, ...]:
    """The steps up to the first QuantizeLinear; none if there is no such."""
    for at, step in enumerate(steps):
        if step.quantizes:
            return steps[: at + 1]
    return ()


def _without_dequantize(steps: tuple[ChainStep, ...]) -> tuple[ChainStep, ...]:
    """The steps without a DequantizeLinear at their end."""
    while steps and steps[-1].dequantizes:
        steps = steps[:-1]
    return steps


def _before_last_level(steps: tuple[ChainStep, ...]) -> tuple[ChainStep, ...]:
    """The steps before the last convolution or pixel shuffle."""
    levels = [at for at, step in enumerate(steps) if step.stride is not None]
    return steps[: levels[-1]] if levels else ()


def _original_of(site: UpsampleSite, step: PixelShuffle) -> Original | None:
    """The old nodes of a pixel shuffle, at sizes of the input of the chain."""
    inputs = (tensor for node in site.nodes for tensor in node.inputs)
    x = next(tensor for tensor in inputs if tensor.name == site.input)
    original = step.site.original_from(x)
    if original is None or original.sizes is None or original.batch_and_channels is None:
        return original
    shape = (*original.batch_and_channels, *original.sizes)
    batch, channels, *sizes = site.input_axes.of_tensor(shape)
    return replace(original, sizes=tuple(sizes), batch_and_channels=(batch, channels))


def _originals(site: UpsampleSite, steps: Iterable[ChainStep]) -> list[Original | None]:
    return [_original_of(site, step) for step in steps if isinstance(step, PixelShuffle)]


def _run_together(site: UpsampleSite, steps: Iterable[ChainStep]) -> bool:
    """Whether all parts of the chain can run at one input size."""
    parts = _originals(site, steps)
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return False
    tied = [part for part in known if part.sizes is not None]
    if not tied:
        return True
    own = site.original()
    sizes = {part.sizes for part in (*tied, own)} - {None}
    fronts = {part.batch_and_channels for part in (*tied, own)} - {None}
    return len(sizes) == len(fronts) == 1


def _bound_to_shuffles(site: UpsampleSite, steps: Iterable[ChainStep]) -> Original:
    """The old nodes of ``site``, at the sizes that the pixel shuffles after it need."""
    original = site.original()
    for encoded in _originals(site, steps):
        if encoded is not None and encoded.sizes is not None:
            original = replace(
                original, sizes=encoded.sizes, batch_and_channels=encoded.batch_and_channels
            )
    return original
