"""A region: the layers after one or more upsampling layers that do not see where a pixel stands.

    layer a -> LayerNorm over channels -> Conv 1x1 --+
                                                     Add -> y       is computed as
    layer b -----------------------------------------+
    Conv a, Conv b -> the same layers, unchanged, on [N, C, P * H, W] -> one shuffle

The phases of a layer are channels of one Conv. If the channel changes slowest, ``[N, C * P, H, W]``
is ``[N, C, P * H, W]`` by a Reshape: an image whose pixels stand in another order. What computes
each pixel from that pixel alone does not see the order, so the nodes run on it as they are, weights
and all: pointwise layers, 1x1 Convs of any group, reductions over channels, Add and Concat of
images in the same order, a product with a matrix, a normalisation over groups of whole channels.
If what is left has fewer channels, the shuffle has less to move. A Conv that mixes neighbours may
end the region, as one that reads phases and makes phases.

    x -> Conv -> Reshape [N, C, P * H, W] -> nodes -> Reshape [N, C' * P, H, W] -> shuffle -> crop

A `chain.Chain` keeps the phases as channels instead. Its 1x1 Convs are block-diagonal, with zeros
between the phases: that saves a change of layout and costs multiplications by zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.view import View
from deployconv.match import UpsampleSite
from deployconv.polyphase import Polyphase, smallest_kernel
from deployconv.results import ShuffleName
from deployconv.rewrites.base import Summary, Trial
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.conv_emit import conv_input, low_resolution_conv, phase_convs, split_convs
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.shuffles import SHUFFLES, write_shuffle
from deployconv.rewrites.site_on_integers import SiteOnIntegers
from deployconv.rewrites.steps.base import PhaseImage, RegionStep
from deployconv.rewrites.steps.last_conv import LastConv, last_conv_at
from deployconv.rewrites.steps.normalization import normalization_at
from deployconv.rewrites.steps.pixel_conv import pixel_conv_at
from deployconv.rewrites.steps.pixelwise import pixelwise_at
from deployconv.rewrites.steps.product import product_at
from deployconv.rewrites.trial import Draws, build_trial, trial_sizes

if TYPE_CHECKING:
    from deployconv.graph.scope import Scope

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Region:
    """Upsampling layers and the steps after them, with one shuffle at the end.

    Attributes:
        heads: the layers, in graph order; the region is named after the first.
        steps: in graph order; the last one makes the output.
        shuffle: at the end.
        layout: what the shuffle moves.
        summary: what reports show.
        last_axes: the polyphase form of each axis of the Conv that ends the region, if one does.
    """

    heads: tuple[PolyphaseConv, ...]
    steps: tuple[RegionStep, ...]
    shuffle: ShuffleName
    layout: Layout
    summary: Summary
    last_axes: tuple[Polyphase, ...] = ()

    @property
    def head(self) -> PolyphaseConv:
        """The first layer."""
        return self.heads[0]

    @property
    def scope(self) -> Scope:
        return self.head.scope

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        layers = (node for head in self.heads for node in head.nodes)
        return (*layers, *(node for step in self.steps for node in step.nodes))

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.steps[-1].output,)

    @property
    def last(self) -> LastConv | None:
        """The Conv that ends it, if it mixes neighbours."""
        step = self.steps[-1]
        return step if isinstance(step, LastConv) else None

    @property
    def image(self) -> PhaseImage:
        """The image that the steps run on."""
        return PhaseImage(
            sizes=self.head.layout.sizes,
            stride=self.layout.stride,
            dtype=self.layout.dtype,
            batch=self.layout.batch,
            last=self.last_axes,
            name=self.head.site.id,
        )

    @property
    def operators(self) -> None:
        return None

    def emit(self, emitter: Emitter) -> None:
        if self._is_by_phase():
            phased = self._emit_by_phase(emitter)
        else:
            phased = self._emit_on_pixels(emitter)
        write_shuffle(emitter, phased, self.shuffle, self.layout)
        emitter.finish(self.outputs[0])

    def at_sizes(self, sizes: Sequence[int]) -> Region:
        """The same rewrite for inputs of other spatial sizes; what is dynamic stays so."""
        heads = tuple(head.at_sizes(sizes) for head in self.heads)
        made = _sizes_after(heads[0].layout.sizes, self.last_axes)
        return replace(self, heads=heads, layout=replace(self.layout, sizes=made))

    def trial(self, rng: np.random.Generator) -> Trial:
        owns = [SiteOnIntegers.of(head.site) for head in self.heads]
        sizes = self._trial_sizes(owns)
        weights = [step.terms for step in self.steps if step.terms]
        draws = Draws.fitting(
            rng,
            self.scope.opset,
            [
                *(max(terms) for terms in zip(*(own.terms for own in owns), strict=True)),
                *(term for terms in weights for term in terms),
            ],
            max(own.growth for own in owns) * prod(step.growth for step in self.steps),
            2 + len(weights),
            max(own.plain_growth for own in owns) * prod(step.plain_growth for step in self.steps),
        )
        drawn = [own.draw(draws) for own in owns]
        axes = self.head.site.axes
        image = [axis.output_size(size) for axis, size in zip(axes, sizes, strict=True)]
        steps = tuple(step.on_integers(draws, image) for step in self.steps)
        constants: dict[str, Array] = {}
        nodes: dict[str, NodeProto] = {}
        missed: list[str] = []
        for layer in drawn:
            constants |= layer.constants
            nodes |= {proto.output[0]: proto for proto in layer.nodes}
            missed += layer.parity_only
        for step in steps:
            constants |= step.values
            missed += [self.scope.label(node) for node in step.parity_only]
        exported = [OnnxExporter.export_node(node) for step in steps for node in step.nodes]
        feeds = {
            own.site.input: draws.image(own.site.input_shape(own.original, sizes)) for own in owns
        }
        heads = tuple(
            head.on(layer.site, head.layout.channels)
            for head, layer in zip(self.heads, drawn, strict=True)
        )
        rewrite = replace(self, heads=heads, steps=steps)
        return build_trial(
            rewrite.at_sizes(sizes),
            [*nodes.values(), *exported],
            constants,
            feeds,
            missed,
            draws.exact,
            self.layout.batch,
        )

    def _trial_sizes(self, owns: Sequence[SiteOnIntegers]) -> tuple[int, ...]:
        """Sizes that all layers can run at, and beyond the reach of the Conv at the end."""
        found = [
            trial_sizes(head.site, head.axes, max(head.macs.before, head.macs.after), own.original)
            for head, own in zip(self.heads, owns, strict=True)
        ]
        tied = [sizes for sizes, own in zip(found, owns, strict=True) if own.original.sizes]
        if tied:
            return tied[0]
        largest = [max(sizes) for sizes in zip(*found, strict=True)]
        if not self.last_axes:
            return tuple(largest)
        # The last Conv may leave fewer pixels than it reads.
        pairs = zip(largest, self.last_axes, strict=True)
        wanted = [size + form.span for size, form in pairs]
        return tuple(
            size if own is None else max(min(own, size), least)
            for own, size, least in zip(self.head.site.sizes, wanted, largest, strict=True)
        )

    def _is_by_phase(self) -> bool:
        """Whether each phase is an image of its own up to the Conv at the end, which adds them."""
        split = all(head.form == "split" for head in self.heads)
        image = self.image
        alone = all(step.runs_per_phase(image) for step in self.steps[:-1])
        return split and alone and self.last is not None

    def _emit_by_phase(self, emitter: Emitter) -> gs.Tensor:
        """Write each phase as an image of its own and let the last Conv add them up."""
        assert self.last is not None
        convs = [
            phase_convs(emitter, conv_input(emitter, head.site), head, slice(head.layout.channels))
            for head in self.heads
        ]
        images = []
        for phase in zip(*convs, strict=True):
            heads = zip(self.heads, phase, strict=True)
            made = {head.site.output: conv for head, conv in heads}
            for step in self.steps[:-1]:
                made[step.output] = step.emit_on_pixels(emitter, made, self.image)
            images.append(made[self.last.reads[0]])
        return self.last.emit_on_phases(emitter, images, self.image)

    def _emit_on_pixels(self, emitter: Emitter) -> gs.Tensor:
        """The steps on ``[N, C, P * m_1, ..]``, and the result as ``[N, C * P, m_1, ..]``."""
        image = self.image
        made: dict[str, gs.Tensor] = {}
        done: set[str] = set()
        for head in self.heads:
            phased, output = _phases(emitter, head), head.site.output
            # These see neither channels nor pixels: they run directly after the Conv, where
            # runtimes fuse them.
            for first in self.elementwise_after(head.site):
                phased = first.emit_on_pixels(emitter, {output: phased}, image)
                output = first.output
                done.add(output)
            made[output] = image.on_pixels(emitter, phased, head.site.channels[1])
            image = replace(image, phased=phased)
        for step in self.steps:
            if step.output not in done:
                made[step.output] = step.emit_on_pixels(emitter, made, image)
        result = made[self.outputs[0]]
        if self.last is not None:
            return result
        return image.stacked(emitter, result, self.steps[-1].channels * image.phases)

    def elementwise_after(self, site: UpsampleSite) -> tuple[RegionStep, ...]:
        """The elementwise steps directly after ``site``, one after the other."""
        found: list[RegionStep] = []
        while True:
            output = found[-1].output if found else site.output
            readers = [step for step in self.steps if output in step.reads]
            if len(readers) != 1 or not readers[0].is_elementwise:
                return tuple(found)
            found.append(readers[0])


def _phases(emitter: Emitter, head: PolyphaseConv) -> gs.Tensor:
    """``[N, C * P, m_1, ..]``, by one Conv or by one per phase."""
    if head.form != "split":
        return low_resolution_conv(emitter, head)
    x = conv_input(emitter, head.site)
    return split_convs(emitter, x, head, slice(head.layout.channels))


def _sizes_after(
    sizes: tuple[int | None, ...], last_axes: tuple[Polyphase, ...]
) -> tuple[int | None, ...]:
    """The sizes of the tensor that is shuffled, if the heads make images of ``sizes``."""
    if not last_axes:
        return sizes
    pairs = zip(sizes, last_axes, strict=True)
    return tuple(None if size is None else size + form.rows for size, form in pairs)


def region_after(
    head: PolyphaseConv,
    view: View,
    peers: Collection[UpsampleSite] = (),
    excluded: Collection[int] = (),
    ends_in_conv: bool = False,
) -> Region | None:
    """Find the longest region after ``head`` that one tensor leaves, if it can be written.

    None as well if a `Chain` is as good: it must mix channels in another way or join images.

    Args:
        head: the first layer.
        view: the model that it was found in.
        peers: other layers that may join, if their phases lie as those of ``head`` do.
        excluded: ids of nodes that may not be taken in.
        ends_in_conv: whether it must end in a Conv that mixes neighbours; else it has none.
    """
    site = head.site
    if site.tail:
        return None
    sources = {peer.output: peer for peer in peers if _alike(site, peer)} | {site.output: site}
    steps = _steps_after(head, view, sources, excluded, ends_in_conv)
    for end in reversed(range(len(steps))):
        if ends_in_conv and not steps[end].ends_region:
            continue
        found = _ending_in(steps[: end + 1], sources, site.scope)
        if found is None or found[0][0] is not site:
            continue
        heads, taken = found
        return _planned(head, heads, taken) if any(s.beyond_chains for s in taken) else None
    return None


def _steps_after(
    head: PolyphaseConv,
    view: View,
    sources: Mapping[str, UpsampleSite],
    excluded: Collection[int],
    ends_in_conv: bool,
) -> list[RegionStep]:
    """All steps that read the ``sources`` or each other, in graph order."""
    site, cropped = head.site, head.layout.cropped
    channels = {name: source.channels[1] for name, source in sources.items()}
    steps: list[RegionStep] = []
    first = min(site.scope.index(source.nodes[-1]) for source in sources.values())
    for node in site.scope.nodes[first + 1 :]:
        if any(tensor.name in channels for tensor in node.inputs):
            step = _step_at(node, site, view, channels, ends_in_conv)
            if step is None or (step.needs_whole_image and cropped):
                continue
            if not any(id(part) in excluded for part in step.nodes):
                steps.append(step)
                if not step.ends_region:
                    channels[step.output] = step.channels
    return steps


def _step_at(
    node: gs.Node,
    site: UpsampleSite,
    view: View,
    channels: Mapping[str, int],
    ends_in_conv: bool,
) -> RegionStep | None:
    """The step that begins with ``node``, on images with so many ``channels``."""
    step: RegionStep | None = pixel_conv_at(node, site, view, channels) or pixelwise_at(
        node, site, view, channels
    )
    if step is None and None not in site.sizes:
        step = product_at(node, site.scope, view)
    width = channels.get(node.inputs[0].name)
    if step is not None or width is None:
        return step
    ending = last_conv_at(node, site, view, width) if ends_in_conv else None
    return ending or normalization_at(node, site.scope, view, width)


def _alike(site: UpsampleSite, peer: UpsampleSite) -> bool:
    """Whether two layers put the same phases at the same pixels."""
    inputs = [(one.input, one.input_axes) for one in (site, peer)]
    same_input = inputs[0] == inputs[1] or (None not in site.sizes and site.sizes == peer.sizes)
    extras = ([axis.extra for axis in one.axes] for one in (site, peer))
    return (
        peer is not site
        and not peer.tail
        and peer.scope is site.scope
        and peer.stride == site.stride
        and same_input
        and len({tuple(extra) for extra in extras}) == 1
    )


def _ending_in(
    steps: Sequence[RegionStep], sources: Mapping[str, UpsampleSite], scope: Scope
) -> tuple[list[UpsampleSite], tuple[RegionStep, ...]] | None:
    """The layers and steps that the last step needs, if no other node reads their results."""
    wanted = {steps[-1].output}
    taken: list[RegionStep] = []
    for step in reversed(steps):
        if step.output in wanted:
            taken.insert(0, step)
            wanted.update(step.reads)
    heads = [source for name, source in sources.items() if name in wanted]
    inside = {id(node) for step in taken for node in step.nodes}
    made = [head.nodes[-1].outputs[0] for head in heads]
    made += [step.nodes[-1].outputs[0] for step in taken[:-1]]
    for tensor in made:
        if tensor.name in scope.outputs or any(id(node) not in inside for node in tensor.outputs):
            return None
    heads.sort(key=lambda head: scope.index(head.nodes[-1]))
    return heads, tuple(taken)


def _planned(
    head: PolyphaseConv, sites: Sequence[UpsampleSite], steps: tuple[RegionStep, ...]
) -> Region | None:
    """The region of these layers and steps, ``head`` as planned; None if it cannot be written."""
    if head.shuffle is None or head.form == "conv" or head.channel_split:
        return None
    shuffle = SHUFFLES[head.shuffle]
    if not shuffle.phases_in_order:  # the channel must change slowest
        return None
    if any(site.weight.quantized is not None for site in sites):
        return None  # integer layers end at their QuantizeLinear, see `chain`
    heads = [replace(head, volume=False)]
    for site in sites[1:]:
        other = plan_conv(site, head.form, head.shuffle)
        if not isinstance(other, PolyphaseConv) or not _same_image(other, head):
            return None
        heads.append(replace(other, volume=False))
    last = steps[-1]
    layout = replace(head.layout, channels=last.channels)
    last_axes: tuple[Polyphase, ...] = ()
    if isinstance(last, LastConv):
        last_axes = tuple(map(smallest_kernel, last.axes))
        sizes = _sizes_after(layout.sizes, last_axes)
        crop = tuple(form.crop for form in last_axes)
        layout = replace(layout, sizes=sizes, crop=crop, group=1)
    if not shuffle.takes(layout) or not head.layout.reshapes:
        return None
    return Region(tuple(heads), steps, head.shuffle, layout, head.summary, last_axes)


def _same_image(one: PolyphaseConv, other: PolyphaseConv) -> bool:
    """True if the Convs make images of one size, cropped alike."""
    return (one.layout.sizes, one.layout.crop, [form.rows for form in one.axes]) == (
        other.layout.sizes,
        other.layout.crop,
        [form.rows for form in other.axes],
    )
