"""The one lowering: a site and its plan become Conv, shuffle, crop.

x -> Conv(phase-corrected weights) -> shuffle -> crop -> y

In form ``split`` there is a Conv for each phase, and their results are put side by side; in
``halves`` all that is done for half of the output channels, then for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.errors import ModelError
from deployconv.match import Parameter, Pointwise, UpsampleSite
from deployconv.polyphase import phase_weights
from deployconv.rewrites.lowering.emit import Emitter
from deployconv.rewrites.lowering.places import in_order, interleaved
from deployconv.rewrites.lowering.plan import Plan
from deployconv.rewrites.lowering.quantized import integers_of, write_dequantized, write_requantized
from deployconv.rewrites.lowering.shuffle import SHUFFLES, write_crop, write_shuffle

Array = NDArray[Any]


def lower(site: UpsampleSite, plan: Plan, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The nodes that compute ``site.output`` from ``site.input``.

    Args:
        site: what to compute.
        plan: in which form.
        fresh: makes a name that the model does not have from a short suffix.

    Raises:
        ModelError: a weight or bias is NaN or infinite, or does not have its declared shape.
    """
    emitter = Emitter(site.scope.opset, fresh)
    if plan.form == "split":
        x = conv_input(emitter, site)
        made = [_phase_by_phase(emitter, x, site, plan, part) for part in _parts(plan)]
        if len(made) > 1:
            emitter.add("Concat", made, axis=1)
        return emitter.finish(site.output)
    places = in_order(plan.layout.channels, [plan.copies])
    phases_first = plan.shuffle is not None and SHUFFLES[plan.shuffle].phases_first
    order = interleaved(places, 1, phases_first=True) if phases_first else None
    tensor = image_of(emitter, plan, low_resolution_conv(emitter, site, plan, order))
    if plan.repeat is not None:
        emitter.repeat(tensor, plan.repeat)
        return emitter.finish(site.output)
    if plan.shuffle is None:
        write_crop(emitter, tensor, plan.layout)
    else:
        write_shuffle(emitter, tensor, plan.shuffle, plan.layout)
    return emitter.finish(site.output)


def with_folded(site: UpsampleSite, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The layer of a site that stays, with what is folded into its weight and bias."""
    emitter = Emitter(site.scope.opset, fresh)
    inputs = [site.layer.inputs[0], emitter.constant("weight", finite(site.weight, site.id))]
    if site.bias is not None:
        inputs.append(emitter.constant("bias", finite(site.bias, site.id)))
    emitter.add(site.layer.op, inputs, **site.layer.attrs)
    return emitter.finish(site.output)


def low_resolution_conv(
    emitter: Emitter, site: UpsampleSite, plan: Plan, order: Array | None = None
) -> gs.Tensor:
    """The Conv that makes all phases as channels: in ``order``, or with the phases fastest.

    Its result may have an axis more than an image, see `image_of`.
    """
    tensor = conv_input(emitter, site)
    if plan.volume:
        tensor = emitter.add("Unsqueeze", [tensor, emitter.ints("depth", [_DEPTH])])

    def phased(values: Array) -> Array:
        repeated = site.phased(values, plan.copies).ravel()
        return repeated if order is None else repeated[order]

    inputs = [tensor, _write_weight(emitter, site, plan, order, phased)]
    if site.bias is not None:
        # The scale of an integer bias belongs to that of the weight, and that may be new.
        bias = replace(site.bias, quantized=None) if plan.requantized else site.bias
        inputs.append(write_parameter(emitter, "bias", bias, site.id, phased))
    depth = [(0, 0)] if plan.volume else []
    pads = [*depth, *(form.pads for form in plan.axes)]
    return emitter.add("Conv", inputs, **conv_attributes(plan.conv_kernel, pads, site.group))


_DEPTH = 2
"""The axis behind the channels."""


def image_of(emitter: Emitter, plan: Plan, tensor: gs.Tensor) -> gs.Tensor:
    """What the Conv of ``plan`` made, as an image."""
    if not plan.volume:
        return tensor
    return emitter.add("Squeeze", [tensor, emitter.ints("depth", [_DEPTH])])


def _parts(plan: Plan) -> list[slice]:
    """Of the output channels: what is computed at once."""
    channels = plan.layout.channels
    bounds = [0, channels // 2, channels] if plan.halves else [0, channels]
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def _phase_by_phase(
    emitter: Emitter, x: gs.Tensor, site: UpsampleSite, plan: Plan, part: slice
) -> gs.Tensor:
    """``part`` of the output channels by one Conv a phase, and these shuffled."""
    assert plan.shuffle is not None
    layout = replace(plan.layout, channels=len(range(plan.layout.channels)[part]))
    return write_shuffle(emitter, split_convs(emitter, x, site, plan, part), plan.shuffle, layout)


def split_convs(
    emitter: Emitter, x: gs.Tensor, site: UpsampleSite, plan: Plan, part: slice
) -> gs.Tensor:
    """``part`` of the output channels by one Conv a phase.

    Their results side by side, in the order that the shuffle of ``plan`` reads.
    """
    assert plan.shuffle is not None
    channels = len(range(plan.layout.channels)[part])
    made = phase_convs(emitter, x, site, plan, part)
    if SHUFFLES[plan.shuffle].phases_first:
        return emitter.add("Concat", made, axis=1)
    columns = [emitter.reshape(tensor, [0, channels, 1, -1]) for tensor in made]
    stacked = emitter.add("Concat", columns, axis=2)
    front = [0, channels * prod(site.stride)]
    return emitter.reshape_to_image(stacked, front, plan.layout.sizes, made[0])


def phase_convs(
    emitter: Emitter, x: gs.Tensor, site: UpsampleSite, plan: Plan, part: slice
) -> list[gs.Tensor]:
    """``part`` of the output channels of each phase, by a Conv with the places that it needs."""
    kernel = np.moveaxis(
        phase_weights(site.kernel(finite(site.weight, site.id)), plan.axes), 0, site.rank
    )
    biases = _phase_biases(emitter, site, part)
    made = []
    for number, phase in enumerate(product(*(range(stride) for stride in site.stride))):
        places = [form.places(q) for form, q in zip(plan.axes, phase, strict=True)]
        pads = [
            (form.pads[0] - first, form.pads[1] - (form.span - 1 - last))
            for form, (first, last) in zip(plan.axes, places, strict=True)
        ]
        taps = kernel[phase][part]
        for axis, (first, last) in enumerate(places):
            taps = taps.take(range(first, last + 1), axis=2 + axis)
        weight = emitter.constant("weight", taps)
        attributes = conv_attributes(weight.shape[2:], pads, site.group)
        made.append(emitter.add("Conv", [x, weight, *biases[number]], **attributes))
    return made


def _phase_biases(emitter: Emitter, site: UpsampleSite, part: slice) -> list[list[gs.Tensor]]:
    """The bias of each phase, if any; mostly one for all."""
    if site.bias is None:
        return [[]] * site.phases
    values = site.phased(finite(site.bias, site.id), site.phases)[part]
    if (values == values[:, :1]).all():
        return [[emitter.constant("bias", values[:, 0])]] * site.phases
    return [[emitter.constant("bias", of_phase)] for of_phase in values.T]


def conv_input(emitter: Emitter, site: UpsampleSite) -> gs.Tensor:
    """What the Conv reads: the site's input behind the layers that have moved there."""
    tensor: gs.Tensor = gs.Variable(site.input)
    for layers in site.prelude:
        tensor = _moved(emitter, layers, tensor)
    if site.folded:
        tensor = emitter.reshape(tensor, [-1, 1, *(0,) * site.rank])
    return tensor


def conv_attributes(
    kernel: Sequence[int], pads: Sequence[tuple[int, int]], group: int = 1
) -> dict[str, Any]:
    """Those of a Conv of stride 1, without what says the default."""
    begins, ends = zip(*pads, strict=True)
    attributes: dict[str, Any] = {"kernel_shape": list(kernel)}
    if any(begins) or any(ends):
        attributes["pads"] = [*begins, *ends]
    if group > 1:
        attributes["group"] = group
    return attributes


def _moved(emitter: Emitter, layers: Pointwise, tensor: gs.Tensor) -> gs.Tensor:
    """Copies of pointwise layers, at work on ``tensor``; their constants are the model's."""
    made = {layers.source: tensor}
    for node in layers.nodes:
        inputs = [made.get(given.name, given) for given in node.inputs]
        copy = emitter.add(node.op, inputs, **node.attrs)
        made[node.outputs[0].name] = copy
    return made[layers.target]


def _write_weight(
    emitter: Emitter,
    site: UpsampleSite,
    plan: Plan,
    order: Array | None,
    phased: Callable[[Array], Array],
) -> gs.Tensor:
    """``[C_out * phases, C_in/group, span ..]`` in the channel order that is asked for."""

    def arranged(values: Array, fill: Array | int = 0) -> Array:
        moved = phase_weights(site.kernel(values), plan.axes, fill)
        stacked = moved.reshape(-1, moved.shape[site.rank + 1], *plan.conv_kernel)
        return stacked if order is None else stacked[order]

    quantized = site.weight.quantized
    if quantized is None:
        return emitter.constant("weight", arranged(finite(site.weight, site.id)))
    integers = integers_of(site.weight, quantized, site.id)
    if plan.requantized:
        return write_requantized(emitter, "weight", arranged(site.weight.read().astype(np.float64)))
    # A tap that is not there is a zero, and a zero is the zero point.
    fill = 0 if quantized.zero_point is None else quantized.zero_point
    return write_dequantized(emitter, "weight", quantized, arranged(integers, fill), phased)


def write_parameter(
    emitter: Emitter, suffix: str, parameter: Parameter, site: str, moved: Callable[[Array], Array]
) -> gs.Tensor:
    """A parameter whose axis 0, the output channels, ``moved`` arranges; integers stay such."""
    quantized = parameter.quantized
    if quantized is None:
        return emitter.constant(suffix, moved(finite(parameter, site)))
    integers = integers_of(parameter, quantized, site)
    return write_dequantized(emitter, suffix, quantized, moved(integers), moved)


def finite(parameter: Parameter, site: str) -> Array:
    """The values of ``parameter``; ModelError where one is NaN or infinite."""
    values = parameter.read()
    if values.shape != parameter.shape:
        raise ModelError(
            f"{site}: '{parameter.name}' has shape {list(values.shape)}, declared"
            f" {list(parameter.shape)}: export the model again"
        )
    if not np.isfinite(values).all():
        raise ModelError(
            f"{site}: '{parameter.name}' holds NaN or infinite values: check the training or"
            f" export that made it"
        )
    return values
