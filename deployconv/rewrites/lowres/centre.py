"""A site less its mean over channels: its weights less theirs.

    site(w, b) -> a -> ReduceMean over channels -> m
                  a -> Sub(a, m) -> y                   is        site(w - mean(w), b - mean(b))

A mean over output channels is a sum over outputs that are sums over inputs, and the two may
change places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.view import View
from deployconv.match import Parameter, UpsampleSite
from deployconv.rewrites.lowres.follow import is_known, only_reader, reduces_channels

Array = NDArray[Any]


def mean_behind(site: UpsampleSite, view: View) -> tuple[gs.Node, gs.Node] | None:
    """The mean over channels right behind ``site`` and what takes it off; else None."""
    tensor, scope = site.nodes[-1].outputs[0], site.scope
    if site.folded or site.weight.quantized is not None or site.group != 1:
        return None
    if tensor.name in scope.outputs or len(tensor.outputs) != 2:
        return None
    mean = next((node for node in tensor.outputs if node.op == "ReduceMean"), None)
    if mean is None or not is_known(mean, scope):
        return None
    axes = view.constants.fixed(mean.inputs[1], scope) if len(mean.inputs) > 1 else None
    if not reduces_channels(mean, axes, site.rank + 2):
        return None
    difference = only_reader(mean.outputs[0], scope)
    if difference is None or difference.op != "Sub" or difference.inputs[0] is not tensor:
        return None
    return mean, difference


def less_mean(parameter: Parameter, axis: int) -> Array:
    """The values less their mean along the output channels, in float64 and rounded once."""
    values = parameter.read()
    wide = values.astype(np.float64)
    return np.asarray((wide - wide.mean(axis, keepdims=True)).astype(values.dtype))
