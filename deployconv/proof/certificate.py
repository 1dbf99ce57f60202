"""The certificate: old and new nodes agree bit for bit on small random integers.

Weights, bias and input are filled with integers so small that every float32 sum is exact
whatever its order. An index error cannot pass, rounding cannot fail. Float16, bfloat16 and
float64 sites are certified as their float32 twin: neither the nodes nor the arrangement of
the weights depends on the element type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import isqrt, prod
from typing import Any, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.backends import get_backend
from deployconv.errors import BackendUnavailable, DeployconvError
from deployconv.lowering import Plan, lower
from deployconv.proof.twin import float32_twin
from deployconv.sites import Original, Parameter, UpsampleSite

Array = NDArray[Any]
Verdict = Literal["exact", "failed"]

_Graph = tuple[Sequence[NodeProto], dict[str, Array]]
"""Nodes and the values of their constants."""

_EXACT = 1 << 23
"""Sums of integers below this are exact in float32, with a bit to spare for the bias."""
_AFFORDABLE = 200_000_000
"""Multiplications for which a site is run at its own size; larger ones are run smaller."""
_TWINNED = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class _Model:
    """A model of one site, with what feeds it."""

    proto: ModelProto
    feeds: Mapping[str, Array]


def certify(site: UpsampleSite, plan: Plan, seed: int = 0) -> Verdict:
    """Run the old and the new nodes of ``site`` on integers and compare every element.

    Both run in onnxruntime where it is installed and can run them, else in the ONNX
    reference evaluator. Raises BackendUnavailable where neither can run one of them.
    """
    rng = np.random.default_rng(seed)
    original = site.original()
    sizes = _sizes(site, plan, original)
    integers = _with_integers(site, rng)
    channels = site.channels[0]
    batch = original.batch or 2
    value = _bound(site)
    x = rng.integers(-value, value + 1, (batch, channels, *sizes)).astype(np.float32)
    parameters = (integers.weight, integers.bias)
    given = {parameter.name: parameter.read() for parameter in parameters if parameter}
    old = _model(site, (original.nodes, {**original.constants, **given}), x)
    new = _model(site, _new_nodes(integers, plan.resized(sizes)), x)
    expected, actual = _run(old, site), _run(new, site)
    return "exact" if np.array_equal(expected, actual) else "failed"


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


def _bound(site: UpsampleSite) -> int:
    """The largest integer for which a sum over all taps and channels stays exact."""
    terms = site.channels[0] // site.group * prod(axis.taps for axis in site.axes)
    return max(1, min(64, isqrt(_EXACT // terms)))


def _with_integers(site: UpsampleSite, rng: np.random.Generator) -> UpsampleSite:
    value = _bound(site)

    def integers(parameter: Parameter) -> Parameter:
        drawn = rng.integers(-value, value + 1, parameter.shape).astype(np.float32)
        return replace(parameter, dtype=drawn.dtype, read=lambda: drawn)

    # Pointwise layers that change place are certified as identity, in old and new alike.
    return replace(
        site,
        prelude=(),
        weight=integers(site.weight),
        bias=None if site.bias is None else integers(site.bias),
    )


def _new_nodes(site: UpsampleSite, plan: Plan) -> _Graph:
    number = count()
    given: dict[str, Array] = {}
    nodes: list[NodeProto] = []
    for node in lower(site, plan, lambda suffix: f"certificate/{suffix}_{next(number)}"):
        nodes.append(OnnxExporter.export_node(node))
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                given[tensor.name] = tensor.values
    return nodes, given


def _model(site: UpsampleSite, graph: _Graph, x: Array) -> _Model:
    nodes, given = graph
    kind = TensorProto.FLOAT
    proto = onnx.helper.make_graph(
        nodes,
        "certificate",
        [onnx.helper.make_tensor_value_info(site.input, kind, list(x.shape))],
        [onnx.helper.make_tensor_value_info(site.output, kind, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    # IR version 8 allows initializers that are no inputs and is known to every runtime here.
    opsets = [onnx.helper.make_opsetid("", site.scope.opset)]
    model = onnx.helper.make_model(proto, opset_imports=opsets, ir_version=8)
    return _Model(float32_twin(model, _TWINNED), {site.input: x})


def _run(model: _Model, site: UpsampleSite) -> Array:
    try:
        session = get_backend("ort").prepare(model.proto.SerializeToString(), optimise=False)
        return session.run(model.feeds)[site.output]
    except DeployconvError as refusal:
        # onnxruntime is not installed, or refuses what ONNX allows.
        from onnx.reference import ReferenceEvaluator

        try:
            (result,) = ReferenceEvaluator(model.proto).run(None, dict(model.feeds))
        except Exception as error:
            raise BackendUnavailable(
                f"{site.id}: no certificate, as neither onnxruntime ({refusal}) nor the ONNX"
                f" reference evaluator ({type(error).__name__}) runs it: leave it out with --skip"
            ) from error
        return np.asarray(result)
