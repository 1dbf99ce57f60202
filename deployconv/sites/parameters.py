"""Weight and bias of a convolution: constant, of a float type, not overridable; or a reason."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from deployconv.model.constants import Constant
from deployconv.model.view import Scope, View
from deployconv.sites.site import Skip

_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Parameters:
    """The constants that a convolution multiplies with and adds."""

    weight: Constant
    bias: Constant | None


def missing_weight(node: gs.Node) -> Skip:
    """Why the weight of ``node`` is no constant."""
    producers = node.inputs[1].inputs
    if producers and producers[0].op == "DequantizeLinear":
        return Skip("quantized-weight", "its weight is quantized, and folding it would undo that")
    return Skip("runtime-weight", "its weight is computed while the model runs")


def find_parameters(node: gs.Node, scope: Scope, view: View, weight: Constant) -> Parameters | Skip:
    """The parameters of ``node``, a Conv or ConvTranspose with the constant ``weight``."""
    bias = None
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = view.constants.of(node.inputs[2], scope)
        if bias is None:
            return Skip("runtime-bias", "its bias is computed while the model runs")
    if weight.dtype.name not in _DTYPES:
        return Skip("unsupported-dtype", f"its weight is {weight.dtype.name}")
    rank = len(weight.shape) - 2
    if rank > 3:
        return Skip("unsupported-rank", f"it has {rank} spatial axes; Conv runs on 1 to 3")
    overridable = weight.overridable or (bias is not None and bias.overridable)
    if overridable and not view.constants.frozen:
        return Skip(
            "overridable-initializer",
            "its weight or bias is a graph input with a default that a caller may override;"
            " --freeze-initializers takes the default as constant",
        )
    return Parameters(weight, bias)
