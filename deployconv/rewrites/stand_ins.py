"""Exact stand-ins: nodes that compute on integers what a layer computes on real numbers.

In a trial every sum must be exact. A node that rounds is therefore replaced, in the old and in the
new model alike, by one that does not:

- A node that is exact on integers stays, with drawn integers for its constants.
- A scale (Mul, Div, PRelu, LeakyRelu, BatchNormalization) stays, with powers of two for its scale.
- Any other node becomes an Identity, or a weighted Sum of its inputs if it has several. It is then
  covered by the parity check only, and the report lists it. The weights are 1 and 3, in any order:
  in a plain sum of ``x`` and ``-x``, as in x / (1 + exp(-x)), nothing of ``x`` would be left, and
  the certificate would show nothing of the layers before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.constants import Constant
from deployconv.match import Original, UpsampleSite
from deployconv.rewrites.trial import Draws, constant_of

Array = NDArray[Any]

_EXACT = frozenset(
    (
        "Abs",
        "Add",
        "Cast",
        "Ceil",
        "Concat",
        "Floor",
        "Max",
        "Min",
        "Neg",
        "Relu",
        "Round",
        "Sub",
        "Sum",
    )
)
"""Operators that are exact on integers, and on halves and quarters."""
_SUMS = frozenset(("Mean", "Sum"))
"""Operators of several images that weigh all of them alike."""
_LARGE = float(1 << 20)
"""A bound for Clip that no value of a trial reaches.

Of two bounds only the lower one is reached: values above it must show what computed them.
"""


@dataclass(frozen=True, eq=False)
class StandIn:
    """A node that takes the place of a layer in a trial.

    Attributes:
        node: with the inputs and outputs that it had; its constants have names of their own.
        constants: by the position of the input.
        exact: False if it does not compute what the node computes.
    """

    node: gs.Node
    constants: Mapping[int, Constant]
    exact: bool

    @property
    def values(self) -> dict[str, Array]:
        """Its constants by name."""
        return {known.name: known.read() for known in self.constants.values()}


def growth(node: gs.Node, constants: Iterable[int], plain: bool = False) -> int:
    """By how much the stand-in of ``node`` may enlarge values, fractions of two counted as well.

    ``constants`` are the positions of its constant inputs. With ``plain`` a node that scales values
    is replaced by Identity.
    """
    known = set(constants)
    data = sum(bool(tensor.name) for at, tensor in enumerate(node.inputs) if at not in known)
    if plain and data < 2 and node.op not in ("Add", "Sub"):
        return 1
    if node.op == "BatchNormalization":
        return 10  # half or twice the value, and two more integers
    if node.op == "PRelu":
        return 4
    if node.op == "LeakyRelu" or (data == 1 and node.op in ("Mul", "Div")):
        return 2
    if node.op in ("Add", "Sub"):
        return 2
    if data < 2 or node.op in ("Concat", "Max", "Min"):
        return 1
    return data if node.op in _SUMS else data**2  # 1 + 3 + 5 and so on


def stand_in(
    node: gs.Node,
    constants: Mapping[int, tuple[int, ...]],
    draws: Draws,
) -> StandIn:
    """The stand-in of a pointwise ``node``.

    Args:
        node: computes each position from that position alone.
        constants: shapes of its constant inputs, by position.
        draws: gives the integers.
    """
    data = [at for at, tensor in enumerate(node.inputs) if tensor.name and at not in constants]
    exact = _exact_values(node, constants, data, draws)
    if exact is None:
        op = "Sum" if len(data) > 1 else "Identity"
        weights = [1] * len(data)
        if len(data) > 1 and node.op not in _SUMS:
            weights = draws.rng.permutation(range(1, 2 * len(data), 2)).tolist()
        inputs = [
            node.inputs[at] for at, weight in zip(data, weights, strict=True) for _ in range(weight)
        ]
        return StandIn(copy_of(node, op, inputs, {}), {}, node.op == op)
    values, attributes = exact
    made = {
        at: constant_of(f"certificate/{node.outputs[0].name}/{at}", value)
        for at, value in values.items()
    }
    inputs = [
        gs.Variable(made[at].name) if at in made else tensor
        for at, tensor in enumerate(node.inputs)
    ]
    return StandIn(copy_of(node, node.op, inputs, {**node.attrs, **attributes}), made, True)


def _exact_values(
    node: gs.Node, constants: Mapping[int, tuple[int, ...]], data: Sequence[int], draws: Draws
) -> tuple[dict[int, Array], dict[str, Any]] | None:
    """Constants and attributes that make ``node`` exact on integers; None if there are none."""
    op = node.op
    if op in _EXACT:
        # A zero that must stay zero may neither be raised by Max nor lowered by Min.
        signs = {"Max": -1, "Min": 1} if draws.keeps_zero else {}
        values = {}
        for at, shape in constants.items():
            drawn = draws.integers(shape) if op in ("Max", "Min") else draws.added(shape)
            values[at] = np.abs(drawn) * signs[op] if op in signs else drawn
        return values, {}
    if op == "Clip":
        has_lower = 1 in constants or "min" in node.attrs
        lower, upper = -1.0, _LARGE if has_lower else 1.0
        bounds, stated = {1: lower, 2: upper}, {"min": lower, "max": upper}
        attributes = {name: bound for name, bound in stated.items() if name in node.attrs}
        values = {at: np.full(shape, bounds[at], np.float32) for at, shape in constants.items()}
        return values, attributes
    if draws.plain or len(data) != 1 or data[0] != 0:
        scaled = op == "Mul" and len(data) == len(constants) == 1 and not draws.plain
        return ({0: draws.powers(constants[0])}, {}) if scaled else None
    if op in ("Mul", "Div"):
        return {at: draws.powers(shape) for at, shape in constants.items()}, {}
    if op == "PRelu":
        slopes = (-2, -1, 0.5, 2)
        return {at: draws.powers(shape, slopes) for at, shape in constants.items()}, {}
    if op == "LeakyRelu":
        return {}, {"alpha": 2.0}
    if op == "BatchNormalization":
        gain, offset, mean, variance = (constants[at] for at in range(1, 5))
        values = {
            1: draws.powers(gain),
            2: draws.added(offset),
            3: draws.added(mean),
            4: draws.powers(variance, (1, 4)),
        }
        return values, {"epsilon": 0.0}
    return None


def copy_of(node: gs.Node, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, Any]) -> gs.Node:
    """A node with the outputs of ``node`` that is no part of its graph."""
    given = [gs.Variable(tensor.name) for tensor in inputs]
    outputs = [gs.Variable(tensor.name) for tensor in node.outputs[:1]]
    return gs.Node(op, node.name, dict(attrs), given, outputs)


def channel_sum(node: gs.Node, opset: int) -> tuple[gs.Node, dict[int, Constant]]:
    """The sum over channels in place of a reduction, and its constants by input position.

    From opset 13 on the axes of ReduceSum are an input, those of other reductions only later.
    """
    if opset < 13:
        return copy_of(node, "ReduceSum", node.inputs[:1], {"axes": [1]}), {}
    axes = constant_of("certificate/axes", np.array([1]))
    inputs = [node.inputs[0], gs.Variable(axes.name)]
    return copy_of(node, "ReduceSum", inputs, {}), {1: axes}


def swapped(original: Original, stand_ins: Iterable[gs.Node]) -> list[NodeProto]:
    """The old nodes, with stand-ins in the place of those that have one."""
    nodes = {node.outputs[0].name: node for node in stand_ins}
    return [
        OnnxExporter.export_node(nodes[proto.output[0]]) if proto.output[0] in nodes else proto
        for proto in original.nodes
    ]


# --- Pointwise layers between an upsampling and its Conv, which move to the low resolution


def growth_before_conv(
    site: UpsampleSite, constants: Mapping[str, Array], plain: bool = False
) -> int:
    """By how much the pointwise layers before the Conv may enlarge values."""
    nodes = (node for layers in site.pointwise_before for node in layers.nodes)
    return prod(growth(node, _positions(node, constants), plain) for node in nodes)


class ExactBeforeConv(NamedTuple):
    """A site with stand-ins in place of the pointwise layers before its Conv.

    Attributes:
        site: the site.
        nodes: the stand-ins.
        constants: what they read, by name.
        parity_only: the labels of nodes that have no exact stand-in.
    """

    site: UpsampleSite
    nodes: list[gs.Node]
    constants: dict[str, Array]
    parity_only: list[str]


def with_integers_before_conv(
    site: UpsampleSite, constants: Mapping[str, Array], draws: Draws
) -> ExactBeforeConv:
    """Replace the pointwise layers before the Conv of ``site`` by exact ones.

    Args:
        site: the layer.
        constants: what its nodes read, by name.
        draws: gives the integers.
    """
    if any(axis.stride > 1 and not axis.hold for axis in site.axes):
        draws = replace(draws, keeps_zero=True)  # inserted zeros pass through these layers
    made: dict[str, Array] = {}
    nodes, parity_only, prelude = [], [], []
    for layers in site.pointwise_before:
        replaced, reshaped = [], {}
        for node in layers.nodes:
            shapes = {
                at: constants[node.inputs[at].name].shape for at in _positions(node, constants)
            }
            found = stand_in(node, shapes, draws)
            made |= found.values
            replaced.append(found.node)
            for at, constant in found.constants.items():
                fitting = layers.reshaped.get(node.inputs[at].name)
                if fitting is not None:
                    values = constant.read().reshape(fitting.shape)
                    reshaped[constant.name] = constant_of(constant.name, values)
            if not found.exact:
                parity_only.append(site.scope.label(node))
        nodes += replaced
        prelude.append(replace(layers, nodes=tuple(replaced), reshaped=reshaped))
    return ExactBeforeConv(replace(site, pointwise_before=tuple(prelude)), nodes, made, parity_only)


def _positions(node: gs.Node, constants: Mapping[str, Array]) -> list[int]:
    return [at for at, tensor in enumerate(node.inputs) if tensor.name in constants]
