"""The Conv at the end of a region: from the phases of its image to the phases of its result."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import Parameter
from deployconv.polyphase import Polyphase, kernel_behind_shuffle, phase_weights
from deployconv.rewrites.lowering.emit import Emitter
from deployconv.rewrites.lowering.lower import conv_attributes, finite
from deployconv.rewrites.lowres.last import LastConv

Array = NDArray[Any]


def write_last(
    emitter: Emitter,
    step: LastConv,
    forms: Sequence[Polyphase],
    images: Sequence[gs.Tensor],
    name: str,
) -> gs.Tensor:
    """``[N, C' * P, ..]``, phases fastest, of one image ``[N, C * P, ..]`` or of one a phase.

    Of one a phase, ``[N, C, ..]``, it is the sum of what each gives. ``name`` is for errors.

    Raises ModelError for a weight or bias that is NaN or infinite.
    """
    stride, spans = [form.axis.stride for form in forms], [form.span for form in forms]
    values = finite(Parameter.of(step.weight), name)
    arranged = phase_weights(kernel_behind_shuffle(values, stride, step.dilation), forms)
    kernel = arranged.reshape(len(values) * prod(stride), values.shape[1], prod(stride), *spans)
    parts = np.moveaxis(kernel, 2, 0)
    if len(images) == 1:
        parts = kernel.reshape(1, len(kernel), -1, *spans)
    bias = []
    if 2 in step.constants:
        phased = np.repeat(finite(Parameter.of(step.constants[2]), name), prod(stride))
        bias.append(emitter.constant("bias", phased))
    attributes = conv_attributes(spans, [form.pads for form in forms])
    total: gs.Tensor | None = None
    for image, part in zip(images, parts, strict=True):
        inputs = [image, emitter.constant("weight", part), *([] if total is not None else bias)]
        made = emitter.add("Conv", inputs, **attributes)
        total = made if total is None else emitter.add("Add", [total, made])
    assert total is not None
    return total
