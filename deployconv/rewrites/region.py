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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.match import UpsampleSite
from deployconv.polyphase import Polyphase
from deployconv.results import ShuffleName
from deployconv.rewrites.base import Summary, Trial
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.conv_emit import conv_input, low_resolution_conv, phase_convs, split_convs
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.shuffles import write_shuffle
from deployconv.rewrites.site_on_integers import SiteOnIntegers, draws_for
from deployconv.rewrites.steps.base import PhaseImage, RegionStep
from deployconv.rewrites.steps.last_conv import LastConv
from deployconv.rewrites.trial import build_trial, trial_sizes

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
        made = sizes_after(heads[0].layout.sizes, self.last_axes)
        return replace(self, heads=heads, layout=replace(self.layout, sizes=made))

    def trial(self, rng: np.random.Generator) -> Trial:
        owns = [SiteOnIntegers.of(head.site) for head in self.heads]
        sizes = self._trial_sizes(owns)
        draws = draws_for(owns, self.steps, rng)
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


def sizes_after(
    sizes: tuple[int | None, ...], last_axes: tuple[Polyphase, ...]
) -> tuple[int | None, ...]:
    """The sizes of the tensor that is shuffled, if the heads make images of ``sizes``."""
    if not last_axes:
        return sizes
    pairs = zip(sizes, last_axes, strict=True)
    return tuple(None if size is None else size + form.rows for size, form in pairs)
