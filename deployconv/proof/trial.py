"""What a certificate runs: the old and the new nodes of one site, with integers to run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import isqrt, prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.lowering import Plan, ShufflePlan, new_nodes
from deployconv.proof.twin import float32_twin
from deployconv.sites import Original, Parameter, ShuffleSite, UpsampleSite

Array = NDArray[Any]

_EXACT = 1 << 23
"""Sums of integers below this are exact in float32, with a bit to spare for the bias."""
_AFFORDABLE = 200_000_000
"""Multiplications for which a site is run as it is; larger ones are run smaller."""
_TWINNED = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Trial:
    """Two models, the old nodes and the new ones, with what feeds both."""

    old: ModelProto
    new: ModelProto
    feeds: Mapping[str, Array]
    output: str


def trial_of(
    site: UpsampleSite | ShuffleSite, plan: Plan | ShufflePlan, rng: np.random.Generator
) -> Trial:
    """A trial for ``site`` on random integers for which every float32 sum is exact."""
    if isinstance(site, UpsampleSite) and isinstance(plan, Plan):
        return _upsampling(site, plan, rng)
    if isinstance(site, ShuffleSite) and isinstance(plan, ShufflePlan):
        return _shuffle(site, plan, rng)
    raise TypeError(f"{type(plan).__name__} is no plan for {type(site).__name__}")


def _upsampling(site: UpsampleSite, plan: Plan, rng: np.random.Generator) -> Trial:
    original = site.original()
    sizes = _sizes(site, plan, original)
    work = prod(sizes) * max(plan.macs.before, plan.macs.after)
    bound = _bound(site.weight, site.channels[0] // site.group)
    # Pointwise layers that change place are certified as identity, in old and new alike.
    site = replace(
        site,
        prelude=(),
        weight=_integers(site.weight, bound, rng),
        bias=None if site.bias is None else _integers(site.bias, bound, rng),
    )
    if work > _AFFORDABLE and site.group == 1:
        site, plan = _with_fewer_outputs(site, plan, max(1, site.channels[1] * _AFFORDABLE // work))
    x = _random((*(original.front or (2, site.channels[0])), *sizes), bound, rng)
    return _trial(site, plan.resized(sizes), original, (site.weight, site.bias), site.input, x)


def _shuffle(site: ShuffleSite, plan: ShufflePlan, rng: np.random.Generator) -> Trial:
    rank = len(site.stride)
    if not plan.reorders or site.conv is None:
        original = site.original()
        sizes = original.sizes or (5, 6, 7)[:rank]
        x = _random((*(original.front or (2, site.channels or 1)), *sizes), 1 << 20, rng)
        return _trial(site, plan.resized(sizes), original, (), site.source, x)
    conv = site.conv
    original = conv.original()
    bound = _bound(conv.weight, conv.weight.shape[1])
    weight = _integers(conv.weight, bound, rng)
    bias = None if conv.bias is None else _integers(conv.bias, bound, rng)
    site = replace(site, conv=replace(conv, weight=weight, bias=bias))
    reach = zip(conv.kernel, conv.dilation, range(rank), strict=True)
    sizes = original.sizes or tuple(d * (k - 1) + 4 + i for k, d, i in reach)
    channels = weight.shape[1] * conv.group
    x = _random((*(original.front or (2, channels)), *sizes), bound, rng)
    # The Conv may have a stride, so that only the graph knows what it leaves to shuffle.
    known = tuple(size for size in site.sizes if size is not None)
    fitted = plan.resized(known) if original.sizes is not None else plan
    return _trial(site, fitted, original, (weight, bias), conv.node.inputs[0].name, x)


def _sizes(site: UpsampleSite, plan: Plan, original: Original) -> tuple[int, ...]:
    """The site's own sizes where they are known and cheap, or matter; else small, unequal ones."""
    if original.sizes is not None:
        return original.sizes
    known = [size for size in site.sizes if size is not None]
    work = prod(known) * max(plan.macs.before, plan.macs.after)
    if len(known) == site.rank and work <= _AFFORDABLE:
        return tuple(known)
    # Beyond the reach of all taps, so that borders and the inside are both there; unequal,
    # so that exchanged axes show.
    reach = [max(form.span, -form.low, form.pads[1]) for form in plan.axes]
    return tuple(
        size if size is not None and size < wanted else wanted
        for size, wanted in zip(site.sizes, (r + 3 + i for i, r in enumerate(reach)), strict=True)
    )


def _with_fewer_outputs(site: UpsampleSite, plan: Plan, channels: int) -> tuple[UpsampleSite, Plan]:
    """The site with its first output channels only: all are made alike."""
    weight = site.weight.read()
    cut = weight[:, :channels] if site.transposed else weight[:channels]
    bias = site.bias
    if bias is not None:
        kept = bias.read()[:channels]
        bias = replace(bias, shape=kept.shape, read=lambda: kept)
    fewer = replace(site.weight, shape=cut.shape, read=lambda: cut)
    layout = replace(plan.layout, channels=channels)
    return replace(site, weight=fewer, bias=bias), replace(plan, layout=layout)


def _bound(weight: Parameter, channels: int) -> int:
    """The largest integer for which a sum over all taps and channels stays exact."""
    terms = channels * prod(weight.shape[2:])
    return max(1, min(64, isqrt(_EXACT // terms)))


def _random(shape: Sequence[int], bound: int, rng: np.random.Generator) -> Array:
    return rng.integers(-bound, bound + 1, tuple(shape)).astype(np.float32)


def _integers(parameter: Parameter, bound: int, rng: np.random.Generator) -> Parameter:
    """Random values; where they are few no two are equal and none is 0, or a fault could hide."""
    few = np.array([*range(-bound, 0), *range(1, bound + 1)], np.float32)
    count = prod(parameter.shape)
    if count <= few.size:
        drawn = rng.permutation(few)[:count].reshape(parameter.shape)
    else:
        drawn = _random(parameter.shape, bound, rng)
    return replace(parameter, dtype=drawn.dtype, read=lambda: drawn)


def _trial(
    site: UpsampleSite | ShuffleSite,
    plan: Plan | ShufflePlan,
    original: Original,
    parameters: Sequence[Parameter | None],
    name: str,
    x: Array,
) -> Trial:
    given = {parameter.name: parameter.read() for parameter in parameters if parameter}
    opset = site.scope.opset
    old = _model(original.nodes, {**original.constants, **given}, opset, name, site.output, x)
    number = count()
    constants: dict[str, Array] = {}
    nodes: list[NodeProto] = []
    for node in new_nodes(site, plan, lambda suffix: f"certificate/{suffix}_{next(number)}"):
        nodes.append(OnnxExporter.export_node(node))
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                constants[tensor.name] = tensor.values
    new = _model(nodes, constants, opset, name, site.output, x)
    return Trial(old, new, {name: x}, site.output)


def _model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    opset: int,
    name: str,
    output: str,
    x: Array,
) -> ModelProto:
    graph = onnx.helper.make_graph(
        nodes,
        "certificate",
        [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, list(x.shape))],
        [onnx.helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    # IR version 8 allows initializers that are no inputs and is known to every runtime here.
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return float32_twin(model, _TWINNED)
