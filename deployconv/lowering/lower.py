"""The one lowering: a site and its plan become Conv, shuffle, crop.

x -> Conv(phase-corrected weights) -> shuffle -> crop -> y
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.errors import ModelError
from deployconv.lowering.emit import Emitter
from deployconv.lowering.plan import Plan
from deployconv.lowering.shuffle import SHUFFLES, write_crop
from deployconv.polyphase import phase_weights
from deployconv.sites import Parameter, Pointwise, UpsampleSite

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
    phases_first = plan.shuffle is not None and SHUFFLES[plan.shuffle].phases_first
    tensor = low_resolution_conv(emitter, site, plan, phases_first)
    if plan.repeat is not None:
        emitter.repeat(tensor, plan.repeat)
        return emitter.finish(site.output)
    cropped = False
    if plan.shuffle is not None:
        tensor = SHUFFLES[plan.shuffle].write(emitter, tensor, plan.layout)
        cropped = SHUFFLES[plan.shuffle].crops
    if not cropped:
        write_crop(emitter, tensor, plan.layout)
    return emitter.finish(site.output)


def low_resolution_conv(
    emitter: Emitter, site: UpsampleSite, plan: Plan, phases_first: bool
) -> gs.Tensor:
    """The Conv that makes all phases as channels, with the channel or the phase fastest."""
    tensor: gs.Tensor = gs.Variable(site.input)
    for layers in site.prelude:
        tensor = _moved(emitter, layers, tensor)
    if site.folded:
        tensor = emitter.reshape(tensor, [-1, 1, *(0,) * site.rank])
    inputs = [tensor, emitter.constant("weight", _weight(site, plan, phases_first))]
    if site.bias is not None:
        bias, copies = finite(site.bias, site.id), plan.copies
        # The bias belongs to every output element, so each phase of a channel has it.
        phased = np.tile(bias, copies) if phases_first else np.repeat(bias, copies)
        inputs.append(emitter.constant("bias", phased))
    begins, ends = zip(*(form.pads for form in plan.axes), strict=True)
    attributes: dict[str, Any] = {"kernel_shape": list(plan.conv_kernel)}
    if any(begins) or any(ends):
        attributes["pads"] = [*begins, *ends]
    if site.group > 1:
        attributes["group"] = site.group
    return emitter.add("Conv", inputs, **attributes)


def _moved(emitter: Emitter, layers: Pointwise, tensor: gs.Tensor) -> gs.Tensor:
    """Copies of pointwise layers, at work on ``tensor``; their constants are the model's."""
    made = {layers.source: tensor}
    for node in layers.nodes:
        inputs = [made.get(given.name, given) for given in node.inputs]
        copy = emitter.add(node.op, inputs, **node.attrs)
        made[node.outputs[0].name] = copy
    return made[layers.target]


def _weight(site: UpsampleSite, plan: Plan, phases_first: bool) -> Array:
    """``[C_out * phases, C_in/group, span ..]`` in the channel order that the shuffle reads."""
    kernel = site.kernel(finite(site.weight, site.id))
    phased = phase_weights(kernel, plan.axes)
    if phases_first:
        phased = np.moveaxis(phased, 0, site.rank)
    return phased.reshape(-1, phased.shape[site.rank + 1], *plan.conv_kernel)


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
