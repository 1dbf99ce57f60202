"""Write the nodes of a polyphase Conv: the Conv or the Convs, the shuffle and the crop.

In form ``split`` there is one Conv per phase, and their results are concatenated. With
``channel_split`` all that is done for one half of the output channels, then for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise, product
from typing import Any, Protocol

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import ImageAxes, Pointwise, UpsampleSite
from deployconv.polyphase import Polyphase, phase_weights
from deployconv.results import FormName, ShuffleName
from deployconv.rewrites.channel_layout import in_order
from deployconv.rewrites.emit import (
    Emitter,
    conv_attributes,
    finite,
    integers_of,
    write_dequantized,
    write_parameter,
    write_requantized,
)
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.shuffle_nodes import write_crop
from deployconv.rewrites.shuffles import SHUFFLES, channel_order, write_shuffle

Array = NDArray[Any]

_DEPTH = 2
"""The axis after the channels."""


class ConvPlan(Protocol):
    """A planned polyphase Conv; see `conv.PolyphaseConv` for what each attribute means."""

    @property
    def site(self) -> UpsampleSite: ...
    @property
    def form(self) -> FormName: ...
    @property
    def shuffle(self) -> ShuffleName | None: ...
    @property
    def axes(self) -> tuple[Polyphase, ...]: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def repeat(self) -> tuple[int, ...] | None: ...
    @property
    def new_scales(self) -> bool: ...
    @property
    def volume(self) -> bool: ...
    @property
    def channel_split(self) -> bool: ...
    @property
    def conv_kernel(self) -> tuple[int, ...]: ...
    @property
    def copies(self) -> int: ...


def emit_conv(emitter: Emitter, planned: ConvPlan) -> None:
    """Write all nodes of a polyphase Conv, from the input of its layer to its output."""
    site = planned.site
    if planned.form == "split":
        x = conv_input(emitter, site)
        made = [_phase_by_phase(emitter, x, planned, part) for part in _parts(planned)]
        if len(made) > 1:
            emitter.add("Concat", made, axis=1)
        return
    order = None
    if planned.shuffle is not None and not SHUFFLES[planned.shuffle].phases_in_order:
        layout = in_order(planned.layout.channels, site.stride)
        order = channel_order(planned.shuffle, layout, site.rank)
    tensor = image_of(emitter, planned, low_resolution_conv(emitter, planned, order))
    if planned.repeat is not None:
        emitter.repeat(tensor, planned.repeat)
    elif planned.shuffle is None:
        write_crop(emitter, tensor, planned.layout)
    else:
        write_shuffle(emitter, tensor, planned.shuffle, planned.layout)


def low_resolution_conv(emitter: Emitter, plan: ConvPlan, order: Array | None = None) -> gs.Tensor:
    """The Conv that makes all phases as channels, in ``order`` or with the phases fastest.

    Its result may have one axis more than an image, see `image_of`.
    """
    site = plan.site
    tensor = emitter.edge_pad(conv_input(emitter, site), [form.edge_pads for form in plan.axes])
    if plan.volume:
        tensor = emitter.unsqueeze(tensor, [_DEPTH])

    def phased(values: Array) -> Array:
        repeated = site.phased(values, plan.copies).ravel()
        return repeated if order is None else repeated[order]

    inputs = [tensor, _write_weight(emitter, plan, order, phased)]
    if site.bias is not None:
        # The scale of an integer bias belongs to that of the weight, and that may be new.
        bias = replace(site.bias, quantized=None) if plan.new_scales else site.bias
        inputs.append(write_parameter(emitter, "bias", bias, site.id, phased))
    depth = [(0, 0)] if plan.volume else []
    pads = [*depth, *(form.pads for form in plan.axes)]
    return emitter.add("Conv", inputs, **conv_attributes(plan.conv_kernel, pads, site.group))


def image_of(emitter: Emitter, plan: ConvPlan, tensor: gs.Tensor) -> gs.Tensor:
    """The result of the Conv without the axis that a volume has and an image has not."""
    return emitter.squeeze(tensor, [_DEPTH]) if plan.volume else tensor


def _parts(plan: ConvPlan) -> list[slice]:
    """The slices of the output channels that are computed one after the other."""
    channels = plan.layout.channels
    bounds = [0, channels // 2, channels] if plan.channel_split else [0, channels]
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def _phase_by_phase(emitter: Emitter, x: gs.Tensor, plan: ConvPlan, part: slice) -> gs.Tensor:
    """Write one Conv per phase for ``part`` of the output channels, and the shuffle."""
    assert plan.shuffle is not None
    layout = replace(plan.layout, channels=len(range(plan.layout.channels)[part]))
    joins = SHUFFLES[plan.shuffle].joins
    if joins is not None:
        joined = joins(emitter, phase_convs(emitter, x, plan, part), layout)
        return write_crop(emitter, joined, layout)
    return write_shuffle(emitter, split_convs(emitter, x, plan, part), plan.shuffle, layout)


def split_convs(emitter: Emitter, x: gs.Tensor, plan: ConvPlan, part: slice) -> gs.Tensor:
    """Write one Conv per phase for ``part`` of the output channels, and concatenate the results.

    Their results are concatenated in the order that the shuffle of ``plan`` reads.
    """
    assert plan.shuffle is not None
    channels = len(range(plan.layout.channels)[part])
    made = phase_convs(emitter, x, plan, part)
    if SHUFFLES[plan.shuffle].steps:
        phases = channel_order(plan.shuffle, in_order(1, plan.site.stride), plan.site.rank)
        made = [made[phase] for phase in phases]
    if SHUFFLES[plan.shuffle].channel_order == "DCR":
        return emitter.add("Concat", made, axis=1)
    # [N, C, 1, m_1 ..] of each phase -> [N, C, P, m_1 ..] -> [N, C * P, m_1 ..]
    images = [emitter.unsqueeze(tensor, [2]) for tensor in made]
    stacked = emitter.add("Concat", images, axis=2)
    leading, sizes = [0, channels * plan.site.phases], plan.layout.static
    if sizes is not None:
        return emitter.reshape(stacked, [*leading, *sizes])
    # A 0 keeps the size at its place, whatever it is.
    return emitter.squeeze(emitter.reshape(stacked, [*leading, 1, *(0,) * plan.site.rank]), [2])


def phase_convs(emitter: Emitter, x: gs.Tensor, plan: ConvPlan, part: slice) -> list[gs.Tensor]:
    """Write one Conv per phase for ``part`` of the output channels; return their results."""
    site = plan.site
    shape = site.kernel(finite(site.weight, site.id)).shape
    inputs, outputs = shape[1], len(range(shape[0])[part])

    @cache
    def kernel() -> Array:
        return np.moveaxis(phase_weights(site.kernel(site.weight.read()), plan.axes), 0, site.rank)

    def taps(phase: tuple[int, ...], needed: Sequence[tuple[int, int]]) -> Array:
        found: Array = kernel()[phase][part]
        for axis, (first, last) in enumerate(needed):
            found = found.take(range(first, last + 1), axis=2 + axis)
        return found

    biases = _phase_biases(emitter, site, part)
    made = []
    for number, phase in enumerate(product(*(range(stride) for stride in site.stride))):
        needed = [form.taps_needed(q) for form, q in zip(plan.axes, phase, strict=True)]
        pads = [
            (form.reach[0] - first, form.reach[1] - (form.span - 1 - last))
            for form, (first, last) in zip(plan.axes, needed, strict=True)
        ]
        edges, zeros = (
            [
                pad if form.axis.edge == edge else (0, 0)
                for form, pad in zip(plan.axes, pads, strict=True)
            ]
            for edge in (True, False)
        )
        spans = [last - first + 1 for first, last in needed]
        weight = emitter.weight(
            "weight", [outputs, inputs, *spans], site.weight.dtype, partial(taps, phase, needed)
        )
        attributes = conv_attributes(spans, zeros, site.group)
        inputs_ = [emitter.edge_pad(x, edges), weight, *biases[number]]
        made.append(emitter.add("Conv", inputs_, **attributes))
    return made


def _phase_biases(emitter: Emitter, site: UpsampleSite, part: slice) -> list[list[gs.Tensor]]:
    """The inputs of each Conv that hold its bias, if there is one; mostly one tensor for all."""
    if site.bias is None:
        return [[]] * site.phases
    values = site.phased(finite(site.bias, site.id), site.phases)[part]
    if (values == values[:, :1]).all():
        return [[emitter.constant("bias", values[:, 0])]] * site.phases
    return [[emitter.constant("bias", of_phase)] for of_phase in values.T]


def conv_input(emitter: Emitter, site: UpsampleSite) -> gs.Tensor:
    """The input of the Conv, after the pointwise layers that run before the upsampling."""
    tensor = _image(emitter, gs.Variable(site.input), site.input_axes)
    for layers in site.pointwise_before:
        tensor = _moved(emitter, layers, tensor)
    if site.channels_in_batch:
        tensor = emitter.reshape(tensor, [-1, 1, *(0,) * site.rank])
    return tensor


def _image(emitter: Emitter, tensor: gs.Tensor, axes: ImageAxes) -> gs.Tensor:
    """The image ``[N, C, i_1 .. i_n]`` that ``tensor`` holds in these axes."""
    for op in axes.operators:
        if op == "Transpose":
            tensor = emitter.add(op, [tensor], perm=list(axes.perm))
        else:
            tensor = emitter.unsqueeze(tensor, axes.added)
    return tensor


def _moved(emitter: Emitter, layers: Pointwise, tensor: gs.Tensor) -> gs.Tensor:
    """Copy pointwise layers so that they read ``tensor``.

    They share their constants with the old layers, if these fit the image.
    """
    made = {layers.source: tensor}
    for name, constant in layers.reshaped.items():
        made[name] = emitter.constant("constant", constant.read())
    for node in layers.nodes:
        inputs = [made.get(given.name, given) for given in node.inputs]
        copy = emitter.add(node.op, inputs, **node.attrs)
        made[node.outputs[0].name] = copy
    return made[layers.target]


def _write_weight(
    emitter: Emitter,
    plan: ConvPlan,
    order: Array | None,
    phased: Callable[[Array], Array],
) -> gs.Tensor:
    """The weight ``[C_out * phases, C_in/group, span ..]`` in the channel order asked for."""
    site = plan.site

    def arranged(values: Array, fill: Array | int = 0) -> Array:
        moved = phase_weights(site.kernel(values), plan.axes, fill)
        stacked = moved.reshape(-1, moved.shape[site.rank + 1], *plan.conv_kernel)
        return stacked if order is None else stacked[order]

    quantized = site.weight.quantized
    if quantized is None:
        channels, inputs = site.kernel(finite(site.weight, site.id)).shape[:2]
        return emitter.weight(
            "weight",
            [channels * plan.copies, inputs, *plan.conv_kernel],
            site.weight.dtype,
            lambda: arranged(site.weight.read()),
        )
    integers = integers_of(site.weight, quantized, site.id)
    if plan.new_scales:
        return write_requantized(emitter, "weight", arranged(site.weight.read().astype(np.float64)))
    # A missing tap is a zero, and the zero point stands for zero.
    fill = 0 if quantized.zero_point is None else quantized.zero_point
    return write_dequantized(emitter, "weight", quantized, arranged(integers, fill), phased)
