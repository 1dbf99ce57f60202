"""Convolutions of single pixels: a 1x1 Conv, or a ConvTranspose whose kernel is its stride.

On phases that are channels it is one Conv whose weight is block-diagonal over the phases. On phases
that are pixels a 1x1 Conv runs as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import Parameter
from deployconv.match.attributes import AttributeReader
from deployconv.match.weights import find_parameters
from deployconv.results import Reason
from deployconv.rewrites.channel_layout import in_order, reordered
from deployconv.rewrites.emit import Emitter, finite
from deployconv.rewrites.steps.base import NodeStep, OrderAfter, PhaseImage
from deployconv.rewrites.steps.pixelwise import HasImages, images_and_constants
from deployconv.rewrites.trial import SCALES, Draws

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PixelConv(NodeStep):
    """A convolution of single pixels, which makes a block of ``stride`` pixels of each one.

    ``transposed`` tells the layout of the weight, as in `UpsampleSite`.
    """

    stride: tuple[int, ...]
    weight: Parameter
    bias: Parameter | None
    transposed: bool

    parity_only: tuple[gs.Node, ...] = ()

    @property
    def mixes_channels(self) -> bool:
        return True

    @property
    def values(self) -> dict[str, Array]:
        parameters = (self.weight, self.bias)
        return {parameter.name: parameter.read() for parameter in parameters if parameter}

    @property
    def channels(self) -> int:
        """C_out."""
        return self.weight.shape[1 if self.transposed else 0]

    @property
    def channels_read(self) -> int:
        """C_in of a group."""
        return self.weight.shape[0 if self.transposed else 1]

    @property
    def terms(self) -> tuple[int, ...]:
        return (self.channels_read, SCALES if self.weight.quantized is not None else 1)

    @property
    def phases(self) -> int:
        """Pixels that it makes of each pixel."""
        return prod(self.stride)

    def kernel(self, values: Array) -> Array:
        """``values`` of the weight as ``[C_out, s_1 .. s_n, C_in]``."""
        if self.transposed:
            return np.moveaxis(values, 0, -1)
        return values.reshape(*values.shape[:2], *self.stride).swapaxes(1, -1)

    def channels_after(self, channels: int) -> int:
        del channels
        return self.channels

    def weight_elements(self, phases: int) -> int:
        return self.channels_read * self.channels * phases * phases * self.phases

    def runs_per_phase(self, image: PhaseImage) -> bool:
        del image
        return True

    def emit_on_channels(
        self, emitter: Emitter, tensor: gs.Tensor, layout: Array, order: OrderAfter, name: str
    ) -> tuple[gs.Tensor, Array]:
        """One Conv whose weight is zero between different phases."""
        made = in_order(self.channels, layout.shape[1:], self.stride)
        chosen = order(made)
        kernel = self.kernel(finite(self.weight, name))
        before = prod(layout.shape[1:])
        dense = np.zeros((self.channels, before, self.phases, layout.size), kernel.dtype)
        for phase, read in enumerate(layout.reshape(self.channels_read, before).T):
            flat = kernel.reshape(self.channels, self.phases, self.channels_read)
            dense[:, phase][:, :, read] = flat
        rank = len(self.stride)
        weight = dense.reshape(-1, layout.size, *(1,) * rank)
        inputs = [tensor, emitter.constant("weight", weight[chosen])]
        if self.bias is not None:
            bias = np.repeat(finite(self.bias, name), before * self.phases)
            inputs.append(emitter.constant("bias", bias[chosen]))
        conv = emitter.add("Conv", inputs, kernel_shape=[1] * rank)
        return conv, reordered(made, chosen)

    def emit_on_pixels(
        self, emitter: Emitter, made: Mapping[str, gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        del image
        return self.copied(emitter, made)

    def on_integers(self, draws: Draws, image: Sequence[int]) -> PixelConv:
        del image
        return replace(self, weight=draws.parameter(self.weight), bias=draws.bias(self.bias))


def mixing_conv_at(node: gs.Node, scope: Scope, view: View) -> PixelConv | None:
    """``node``, a Conv or ConvTranspose of one group, as a step of a chain."""
    weight = view.constants.of(node.inputs[1], scope)
    if weight is None:
        return None
    transposed = node.op == "ConvTranspose"
    name = f"{scope.path}/{scope.label(node)}"
    conv = AttributeReader(node, name).conv(weight, grouped_axis=0)
    extent = conv.kernel if transposed else (1,) * conv.rank
    plain = (
        conv.group == 1
        and conv.kernel == conv.strides == extent
        and not any(conv.pads)
        and not any(node.attrs.get("output_padding", ()))
        and not node.attrs.get("output_shape")
        and set(conv.dilations) == {1}
    )
    parameters = find_parameters(node, scope, view, weight)
    if not plain or isinstance(parameters, Reason):
        return None
    return PixelConv(node, conv.strides, parameters.weight, parameters.bias, transposed)


def pixel_conv_at(
    node: gs.Node, site: HasImages, view: View, widths: Mapping[str, int]
) -> PixelConv | None:
    """``node``, a 1x1 Conv of any number of groups, as a step of a region.

    None if its weight is not for as many channels as the image has, by ``widths``.
    """
    inputs = images_and_constants(node, site, view, widths) if node.op == "Conv" else None
    if inputs is None:
        return None
    data, constants = inputs
    weight = constants.get(1)
    if weight is None or set(constants) != set(range(1, len(node.inputs))):
        return None
    plain = (
        prod(weight.shape[2:]) == 1
        and not any(node.attrs.get("pads", ()))
        and set(node.attrs.get("strides", (1,))) == {1}
    )
    if not plain or data != [weight.shape[1] * int(node.attrs.get("group", 1))]:
        return None
    bias = Parameter.of(constants[2]) if 2 in constants else None
    return PixelConv(node, (1,) * site.rank, Parameter.of(weight), bias, transposed=False)
