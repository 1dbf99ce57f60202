"""The Conv at the end of a region: it mixes neighbouring pixels, and is an upsampling layer itself.

    phases [N, C * P, h, w] -> shuffle -> Conv k -> y                       is
    phases [N, C * P, h, w] -> ConvTranspose, stride s, on C * P channels -> y

With the phases for channels it multiplies by more zeros. That costs nothing if it has so few output
channels that runtimes fill them up to a block anyway, as the last Conv of a decoder or of a
super-resolution network has, which makes three colours of 64 channels. Then the image of 64
channels need not be shuffled, but only that of three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.view import View
from deployconv.match import Parameter, UpsampleSite
from deployconv.match.attributes import AttributeReader
from deployconv.polyphase import Axis, kernel_after_shuffle, phase_weights
from deployconv.rewrites.emit import Emitter, conv_attributes, finite
from deployconv.rewrites.neighbours import is_known
from deployconv.rewrites.steps.base import NodeStep, PhaseImage
from deployconv.rewrites.trial import Draws

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LastConv(NodeStep):
    """A Conv over neighbouring pixels that ends a region.

    Attributes:
        node: the Conv.
        constants: its weight and bias by the position of the input.
        dilation: per axis.
        axes: the Conv as a layer that reads phases.
    """

    constants: Mapping[int, Constant]
    dilation: tuple[int, ...]
    axes: tuple[Axis, ...]

    parity_only: tuple[gs.Node, ...] = ()

    @property
    def needs_whole_image(self) -> bool:
        return True

    @property
    def ends_region(self) -> bool:
        return True

    @property
    def values(self) -> dict[str, Array]:
        return {known.name: known.read() for known in self.constants.values()}

    @property
    def weight(self) -> Constant:
        """``[C_out, C, k_1 .. k_n]``."""
        return self.constants[1]

    @property
    def channels(self) -> int:
        """C_out."""
        return self.weight.shape[0]

    @property
    def taps(self) -> int:
        """Taps of its kernel over all axes."""
        return prod(self.weight.shape[2:])

    @property
    def terms(self) -> tuple[int, ...]:
        return (prod(self.weight.shape[1:]),)

    def runs_per_phase(self, image: PhaseImage) -> bool:
        del image
        return True

    def emit_on_pixels(
        self, emitter: Emitter, made: Mapping[str, gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        channels = self.weight.shape[1] * image.phases
        stacked = image.stacked(emitter, made[self.reads[0]], channels)
        return self.emit_on_phases(emitter, [stacked], image)

    def emit_on_phases(
        self, emitter: Emitter, images: Sequence[gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        """Write the Conv for phases as channels, or for one image per phase.

        Of one image ``[N, C, ..]`` per phase it is the sum of what each gives.

        Raises ModelError if a weight or bias is NaN or infinite.
        """
        forms, name = image.last, image.name
        stride, spans = [form.axis.stride for form in forms], [form.span for form in forms]
        values = finite(Parameter.of(self.weight), name)
        arranged = phase_weights(kernel_after_shuffle(values, stride, self.dilation), forms)
        kernel = arranged.reshape(len(values) * prod(stride), values.shape[1], prod(stride), *spans)
        parts = np.moveaxis(kernel, 2, 0)
        if len(images) == 1:
            parts = kernel.reshape(1, len(kernel), -1, *spans)
        bias = []
        if 2 in self.constants:
            phased = np.repeat(finite(Parameter.of(self.constants[2]), name), prod(stride))
            bias.append(emitter.constant("bias", phased))
        attributes = conv_attributes(spans, [form.pads for form in forms])
        total: gs.Tensor | None = None
        for phase, part in zip(images, parts, strict=True):
            weight = emitter.constant("weight", part)
            inputs = [phase, weight, *(bias if total is None else [])]
            made = emitter.add("Conv", inputs, **attributes)
            total = made if total is None else emitter.add("Add", [total, made])
        assert total is not None
        return total

    def on_integers(self, draws: Draws, image: Sequence[int]) -> LastConv:
        del image
        return replace(self, constants=draws.constants(self.constants))


def last_conv_at(node: gs.Node, site: UpsampleSite, view: View, channels: int) -> LastConv | None:
    """``node`` as the Conv that ends a region, if it reads an image of so many ``channels``."""
    scope = site.scope
    if node.op != "Conv" or not is_known(node, scope):
        return None
    constants = {}
    for position, given in enumerate(node.inputs[1:], start=1):
        constant = view.constants.fixed(given, scope) if given.name else None
        if constant is None or constant.dtype != site.weight.dtype:
            return None
        constants[position] = constant
    weight = constants[1]
    conv = AttributeReader(node, f"{scope.path}/{scope.label(node)}").conv(weight, grouped_axis=0)
    if conv.group != 1 or set(conv.strides) != {1} or weight.shape[1] != channels:
        return None
    if conv.rank != site.rank:
        return None
    axes = tuple(
        Axis.after_shuffle(*axis)
        for axis in zip(site.stride, conv.kernel, conv.dilations, conv.explicit_pads, strict=True)
    )
    if any(size < 1 for size in _trial_sizes(site, axes)):
        return None
    return LastConv(node, constants, conv.dilations, axes)


def _trial_sizes(site: UpsampleSite, axes: tuple[Axis, ...]) -> list[int]:
    """The sizes that the Conv makes of the image of a trial, if that is bound to one size."""
    sizes = site.original().sizes
    if sizes is None:
        return []
    pairs = zip(sizes, site.axes, axes, strict=True)
    return [first.output_size(size) + last.extra for size, first, last in pairs]
