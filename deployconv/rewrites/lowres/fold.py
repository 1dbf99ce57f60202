"""Affine layers behind a site become part of its weights: BatchNormalization, Mul, Add, Sub, Div.

    site(w, b) -> y * scale + shift        becomes        site(w * scale, b * scale + shift)
    site(w, b) -> y - mean over channels   becomes        site(w - mean of w, b - mean of b)

The second is how a LayerNorm over channels begins (`lowres.centre`). Runtimes do the first to a
Conv, but they look for the layer directly behind it; once a shuffle stands in between they find
it no more. Products and means are taken in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.graph.constants import Constant
from deployconv.graph.view import View
from deployconv.match import Original, Parameter, UpsampleSite
from deployconv.rewrites.lowres.centre import less_mean, mean_behind
from deployconv.rewrites.lowres.follow import only_reader

Array = NDArray[Any]

_OPERATORS = frozenset(["Add", "BatchNormalization", "Div", "Mul", "Sub"])


def folded(site: UpsampleSite, view: View) -> UpsampleSite:
    """``site`` with the affine layers behind it in its weight and bias."""
    while True:
        affine, mean = _affine(site, view), mean_behind(site, view)
        if affine is not None:
            site = _scaled(site, *affine)
        elif mean is not None:
            site = _centred(site, *mean)
        else:
            return site


def _scaled(site: UpsampleSite, node: gs.Node, scale: Array, shift: Array) -> UpsampleSite:
    channels = site.channels[1]
    name = site.bias.name if site.bias is not None else f"{site.output}/folded_bias"
    stored, before = site.weight.scaled or (site.weight, np.float64(1))
    bias = Parameter(name, (channels,), site.weight.dtype, partial(_bias, site, scale, shift))
    scaled = (stored, np.asarray(before * scale))
    weight = replace(site.weight, read=partial(_weight, site, scale), scaled=scaled)
    return _taken(site, [node], weight, bias)


def _centred(site: UpsampleSite, mean: gs.Node, difference: gs.Node) -> UpsampleSite:
    read = partial(less_mean, site.weight, 1 if site.transposed else 0)
    weight = replace(site.weight, read=read, scaled=None)
    bias = site.bias
    if bias is not None:
        bias = replace(bias, read=partial(less_mean, bias, 0))
    return _taken(site, [mean, difference], weight, bias)


def _taken(
    site: UpsampleSite, nodes: Sequence[gs.Node], weight: Parameter, bias: Parameter | None
) -> UpsampleSite:
    """``site`` with ``nodes`` behind it in its new weight and bias."""
    return replace(
        site,
        nodes=(*site.nodes, *nodes),
        folds=(*site.folds, *nodes),
        output=str(nodes[-1].outputs[0].name),
        weight=weight,
        bias=bias,
        original=partial(_original, site, nodes[-1], None if bias is None else bias.name),
    )


def _weight(site: UpsampleSite, scale: Array) -> Array:
    """In the layout that it had, each output channel times its scale."""
    values = site.weight.read()
    by_channel = np.broadcast_to(scale, site.channels[1])
    behind = (1,) * site.rank
    if site.transposed:
        # [C_in, C_out/group, ..]: a group of inputs makes a group of outputs.
        c_in, per_group = values.shape[:2]
        grouped = by_channel.reshape(site.group, 1, per_group)
        factors = np.repeat(grouped, c_in // site.group, axis=1).reshape(c_in, per_group, *behind)
    else:
        factors = by_channel.reshape(-1, 1, *behind)
    return np.asarray((values.astype(np.float64) * factors).astype(values.dtype))


def _bias(site: UpsampleSite, scale: Array, shift: Array) -> Array:
    given = 0.0 if site.bias is None else site.bias.read().astype(np.float64)
    values = np.broadcast_to(given * scale + shift, site.channels[1])
    return np.asarray(values.astype(site.weight.dtype))


def _original(site: UpsampleSite, node: gs.Node, bias: str | None) -> Original:
    """For the certificate, which draws weight and bias anew: what is folded passes them on."""
    original = site.original()
    nodes = []
    for proto in original.nodes:
        if bias is not None and proto.output[0] == site.layer.outputs[0].name:
            layer = NodeProto()
            layer.CopyFrom(proto)
            layer.input[:] = [*layer.input[:2], bias]
            proto = layer
        nodes.append(proto)
    source = site.nodes[-1].outputs[0].name
    nodes.append(NodeProto(op_type="Identity", input=[source], output=[node.outputs[0].name]))
    return replace(original, nodes=tuple(nodes))


def _affine(site: UpsampleSite, view: View) -> tuple[gs.Node, Array, Array] | None:
    """The layer behind ``site`` as (node, scale, shift), float64, ``[C_out]`` or scalars."""
    tensor, scope = site.nodes[-1].outputs[0], site.scope
    if site.folded or site.weight.quantized is not None:
        return None
    node = only_reader(tensor, scope)
    if node is None or node.op not in _OPERATORS or len(node.outputs) != 1:
        return None
    given = {i: one for i, one in enumerate(node.inputs) if one is not tensor}
    if not all(map(_stored, given.values())):
        return None
    constants = {i: view.constants.of(one, scope) for i, one in given.items()}
    known = {i: constant for i, constant in constants.items() if constant is not None}
    if len(known) < len(constants) or any(_varies(one, view) for one in known.values()):
        return None
    if node.op == "BatchNormalization":
        # Before opset 7 it trains by default.
        found = _normalised(node, known) if scope.opset >= 7 else None
    else:
        found = _plain(node, known, site)
    if found is None or not all(np.isfinite(values).all() for values in found):
        return None
    fits = all(values.shape in ((), (site.channels[1],)) for values in found)
    return (node, *found) if fits else None


def _stored(tensor: gs.Tensor) -> bool:
    """True for an initializer or a Constant: what must be computed may take reading a large one."""
    while tensor.inputs and tensor.inputs[0].op == "Identity":
        tensor = tensor.inputs[0].inputs[0]
    return isinstance(tensor, gs.Constant) or any(node.op == "Constant" for node in tensor.inputs)


def _varies(constant: Constant, view: View) -> bool:
    return constant.overridable and not view.constants.frozen


def _normalised(node: gs.Node, known: dict[int, Constant]) -> tuple[Array, Array] | None:
    if node.attrs.get("training_mode", 0):
        return None
    gain, offset, mean, variance = (known[i].read().astype(np.float64) for i in range(1, 5))
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gain / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    return scale, offset - mean * scale


def _plain(
    node: gs.Node, known: dict[int, Constant], site: UpsampleSite
) -> tuple[Array, Array] | None:
    ((position, constant),) = known.items()
    rank = site.rank + 2
    padded = (1,) * (rank - len(constant.shape)) + constant.shape
    if len(padded) != rank or prod(padded) != padded[1] or constant.dtype != site.weight.dtype:
        return None
    shape = () if prod(padded) == 1 else (padded[1],)
    values = np.asarray(constant.read().astype(np.float64).reshape(shape))
    one, zero = np.float64(1), np.float64(0)
    with np.errstate(divide="ignore"):
        if node.op == "Mul":
            return values, np.asarray(zero)
        if node.op == "Div":
            return (np.asarray(one / values), np.asarray(zero)) if position == 1 else None
        if node.op == "Sub":
            signs = (one, -values) if position == 1 else (-one, values)
            return np.asarray(signs[0]), np.asarray(signs[1])
        return np.asarray(one), values
