"""Weight and bias of a convolution: constant, of a float type, not overridable; or a reason.

They may be integers behind DequantizeLinear (`quantized`), and stay so.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match.quantized import (
    Dequantized,
    dequantized,
    quantized_bias,
    quantized_weight,
)
from deployconv.match.site import Parameter, Skip

_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Parameters:
    """What a convolution multiplies with and adds."""

    weight: Parameter
    bias: Parameter | None


def find_weight(node: gs.Node, scope: Scope, view: View) -> Constant | Skip:
    """The weight of ``node``, a Conv or ConvTranspose, or why it is no constant."""
    constant = view.constants.of(node.inputs[1], scope)
    if constant is not None:
        return constant
    found = dequantized(node.inputs[1], scope, view)
    return found or Skip("runtime-weight", "its weight is computed while the model runs")


def find_parameters(node: gs.Node, scope: Scope, view: View, weight: Constant) -> Parameters | Skip:
    """The parameters of ``node``, a Conv or ConvTranspose with the constant ``weight``."""
    bias = None
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = view.constants.of(node.inputs[2], scope)
        if bias is None:
            made = dequantized(node.inputs[2], scope, view)
            if isinstance(made, Skip) and made.code != "runtime-weight":
                return made
            if not isinstance(made, Dequantized):
                return Skip("runtime-bias", "its bias is computed while the model runs")
            bias = made
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
    held = _weight(node, weight)
    if isinstance(held, Skip):
        return held
    # Beside a float weight integers make no integer layer, and TensorRT takes no int32 ones.
    read = _bias if held.quantized is not None else Parameter.of
    return Parameters(held, None if bias is None else read(bias))


def _weight(node: gs.Node, weight: Constant) -> Parameter | Skip:
    if isinstance(weight, Dequantized):
        transposed = node.op == "ConvTranspose"
        return quantized_weight(weight, transposed, node.attrs.get("group", 1))
    return Parameter.of(weight)


def _bias(bias: Constant) -> Parameter:
    return quantized_bias(bias) if isinstance(bias, Dequantized) else Parameter.of(bias)
