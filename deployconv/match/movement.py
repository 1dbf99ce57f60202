"""Nodes that only move data, and which element they move to which position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.errors import ModelError
from deployconv.graph.evaluate import evaluate, prepared
from deployconv.graph.nearest import LARGEST
from deployconv.graph.not_evaluated import NotEvaluated
from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance
from deployconv.graph.view import View
from deployconv.match.image_axes import AS_THEY_ARE, ImageAxes

Array = NDArray[Any]

ZERO = -1
"""In an index map: the element is zero, whatever the input."""

MOVES = frozenset(
    [
        "Concat",
        "ConvTranspose",
        "DepthToSpace",
        "Einsum",
        "Expand",
        "Flatten",
        "Gather",
        "GatherND",
        "Identity",
        "Mul",
        "Pad",
        "Reshape",
        "Resize",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Upsample",
        "Where",
    ]
)
"""Operators that can copy, repeat or drop elements, and set others to a constant."""

_KEEPS_ALL = frozenset(["Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
"""Those whose result has each element of their input exactly once."""

_BASE = {"float16": 1000, "bfloat16": 200, "int8": 100, "uint8": 200}
"""How many integers each element type holds exactly; the other types hold a million and more."""
_SHIFT = 1 << 22
"""Added to the elements, to tell them from those that are set, if these are not zero."""


class Runnable(NamedTuple):
    """Nodes that the evaluator can run: ``constants`` are what they read besides their source."""

    nodes: list[NodeProto]
    constants: dict[str, Array]
    target: str


@dataclass(frozen=True, eq=False)
class Segment:
    """Nodes from one tensor that all data passes through to the next, in graph order.

    They are all ``pointwise``, or none of them is.
    """

    nodes: tuple[gs.Node, ...]
    source: gs.Tensor
    target: gs.Tensor
    pointwise: bool


@dataclass(frozen=True, eq=False)
class Movement:
    """The segments on the way of the data from ``source`` to ``target``, in order."""

    view: View
    scope: Scope
    source: gs.Tensor
    target: gs.Tensor
    segments: tuple[Segment, ...]

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """All nodes that the data passes."""
        return tuple(node for segment in self.segments for node in segment.nodes)

    @property
    def pointwise(self) -> tuple[Segment, ...]:
        """The segments of pointwise layers."""
        return tuple(segment for segment in self.segments if segment.pointwise)

    @property
    def may_enlarge(self) -> bool:
        """False if the target has each element of the source exactly once."""
        moving = (segment.nodes for segment in self.segments if not segment.pointwise)
        return any(node.op not in _KEEPS_ALL for nodes in moving for node in nodes)

    @property
    def pads_with_edges(self) -> bool:
        """True if a Pad may repeat the elements at the ends of an axis beyond it."""
        modes = (node.attrs.get("mode") for node in self.nodes if node.op == "Pad")
        return any(mode in ("edge", "reflect") for mode in modes)

    @property
    def pointwise_runs(self) -> list[list[Segment]]:
        """The pointwise segments, consecutive ones in one list: together they may keep zeros."""
        runs: list[list[Segment]] = []
        for segment in self.pointwise:
            if runs and runs[-1][-1].target is segment.source:
                runs[-1].append(segment)
            else:
                runs.append([segment])
        return runs

    def until(self, segment: Segment) -> Movement:
        """The part of this movement before one of its segments."""
        before = self.segments[: self.segments.index(segment)]
        return Movement(self.view, self.scope, self.source, segment.source, before)

    def counting(self, segments: Sequence[Segment]) -> Movement | None:
        """The movement with ``segments`` seen as data movement; None if they cannot be that."""
        if any(node.op not in MOVES for segment in segments for node in segment.nodes):
            return None
        counted = (
            replace(segment, pointwise=False) if segment in segments else segment
            for segment in self.segments
        )
        return replace(self, segments=tuple(counted))

    @property
    def dynamic(self) -> bool:
        """True if sizes are dynamic, so that the movement is tried at some of them only."""
        return self.view.shapes.dynamic and not self.any_size

    def instances(
        self, channels: int | None, rank: int | None, axes: ImageAxes = AS_THEY_ARE
    ) -> tuple[Instance, ...]:
        """Concrete shapes of everything that the movement depends on.

        A Resize by constant scales does the same at every size. Small sizes are enough for it,
        with the ``channels`` and ``rank`` that the Conv reads, in these ``axes``.
        """
        if channels is not None and rank is not None and self.any_size:
            return ({self.source.name: axes.to_tensor((2, channels, 5, 6, 7)[:rank])},)
        return self.view.instances(self.scope, self.source, *self.outside())

    @property
    def any_size(self) -> bool:
        """Whether no node can depend on the size of its input."""
        return all(
            segment.pointwise or all(self._by_scales(node) for node in segment.nodes)
            for segment in self.segments
        )

    def _by_scales(self, node: gs.Node) -> bool:
        if node.op in ("Identity", "Pad", "Transpose", "Upsample"):
            given = [tensor for tensor in node.inputs[1:] if tensor.name]
            known = [self.view.constants.of(tensor, self.scope) for tensor in given]
            if any(constant is None for constant in known):
                return False
            return node.op != "Pad" or self._only_adds(node)
        if node.op != "Resize" or (len(node.inputs) > 3 and node.inputs[3].name):
            return False
        if node.attrs.get("coordinate_transformation_mode") == "align_corners":
            return False  # how often it repeats an element depends on the size
        scales = self.view.constants.of(node.inputs[-1], self.scope)
        return scales is not None and scales.shape != (0,)

    def _only_adds(self, pad: gs.Node) -> bool:
        """Whether a Pad of constant pads crops nothing, so that it fits any size."""
        pads = pad.attrs.get("pads")
        if pads is None and len(pad.inputs) > 1:
            constant = self.view.constants.of(pad.inputs[1], self.scope)
            pads = None if constant is None else constant.read()
        added = pads is not None and all(amount >= 0 for amount in pads)
        return added and pad.attrs.get("mode", "constant") != "wrap"

    def index_map(self, instance: Instance, dtype: str, zero: float = 0.0) -> Array | None:
        """For each element of the target the flat index of its source, or ZERO.

        Args:
            instance: the shapes.
            dtype: element type in which the nodes are run.
            zero: the value of the elements that the movement sets: 0, or a zero point.

        Returns:
            None if the nodes do more than move elements, or if they cannot be run.
        """
        if prod(instance[self.source.name]) > LARGEST or self._has_large(instance):
            return None
        try:
            return self._traced(instance, np.dtype(dtype), zero)
        except (NotEvaluated, ModelError):  # what cannot be run or read is not known to be one
            return None

    def _traced(self, instance: Instance, dtype: np.dtype[Any], zero: float) -> Array | None:
        """`index_map`, found by the numbers of the elements; may raise NotEvaluated."""
        shape = instance[self.source.name]
        count, base = prod(shape), _BASE.get(dtype.name, 1 << 20)
        shift = _SHIFT if zero else 0
        nodes, feeds, target = self._moving(instance, np.zeros(shape, dtype))
        run = prepared(nodes, self.scope.opset, [*feeds, self.source.name], [target])

        def moved(values: Array) -> Array:
            fed = {**feeds, self.source.name: (values + shift).reshape(shape).astype(dtype)}
            (result,) = run(fed)
            result = result.astype(np.float64)
            return np.where(result == zero, 0, result - shift) if shift else result

        # Element numbers in digits from 1, as 0 is what the movement itself sets.
        sources, power = np.zeros((), np.int64), 1
        while power == 1 or power < count:
            digits = moved(np.arange(count) // power % base + 1)
            if digits.size > LARGEST or (digits % 1).any():
                return None
            sources = sources + (digits.astype(np.int64) - 1) * power
            filled = digits != 0
            power *= base
        sources = np.where(filled, sources, ZERO)
        if sources.max(initial=ZERO) >= count or sources.min(initial=0) < ZERO:
            return None
        if count == 0 and sources.size:
            return None
        # Nodes that compute rather than move may give these numbers by chance, but not other
        # numbers as well. Between zeros no small number is lost by rounding.
        rng = np.random.default_rng(0)
        signs = [1] if dtype.kind == "u" else [-1, 1]
        other = rng.integers(1, base, count) * rng.choice(signs, count)
        for values in (other, other * rng.integers(0, 2, count)):
            if not np.array_equal(moved(values), np.where(filled, values[sources], 0)):
                return None
        return sources

    def _moving(self, instance: Instance, source: Array) -> Runnable:
        """As `runnable`, but only the nodes that the data passes, and more constants.

        What the other nodes compute depends on shapes alone: here it is computed once, from a
        ``source`` of any values.
        """
        nodes, feeds, target = self.runnable(instance)
        moving = [node for node in nodes if not self._on_the_way.isdisjoint(node.output)]
        made = {name for node in nodes for name in node.output if name} - self._on_the_way
        computed = sorted(made.intersection(name for node in moving for name in node.input))
        if computed:
            fed = {**feeds, self.source.name: source}
            values = evaluate(nodes, self.scope.opset, fed, computed)
            feeds = {**feeds, **dict(zip(computed, values, strict=True))}
        return Runnable(moving, feeds, target)

    def _has_large(self, instance: Instance) -> bool:
        """Whether a tensor on the way is too large to compute, as in malformed models."""
        nodes = (*self.nodes, *self.arithmetic)
        shapes = (instance.get(out.name, ()) for node in nodes for out in node.outputs)
        return any(prod(shape) > LARGEST for shape in shapes)

    def runnable(self, instance: Instance, pointwise: bool = False) -> Runnable:
        """The NodeProtos from source to target, their constants, and the name of their result.

        Without ``pointwise`` such segments are left out. If the movement ends in one, the result
        is then its input.
        """
        left_out = () if pointwise else self.pointwise
        needed: dict[int, gs.Node] = {}
        feeds: dict[str, Array] = {}
        aliases = {segment.target.name: segment.source.name for segment in left_out}
        skipped = {id(node) for segment in left_out for node in segment.nodes}

        def resolved(name: str) -> str:
            return resolved(aliases[name]) if name in aliases else name

        def need(tensor: gs.Tensor) -> None:
            if not tensor.name or tensor.name == self.source.name:
                return
            constant = self.view.constants.of(tensor, self.scope)
            if constant is not None:
                feeds[tensor.name] = constant.read()
                return
            node = tensor.inputs[0]
            if node.op == "Shape" and self._is_outside(node.inputs[0]):
                shape = instance[node.inputs[0].name]
                bounds = slice(node.attrs.get("start", 0), node.attrs.get("end", len(shape)))
                feeds[tensor.name] = np.array(shape[bounds], np.int64)
                return
            if id(node) in needed:
                return
            if id(node) not in skipped:
                needed[id(node)] = node
            for tensor in node.inputs:
                need(tensor)

        need(self.target)
        ordered = sorted(needed.values(), key=self.scope.index)
        protos = []
        for node in ordered:
            proto = self.scope.copy_of(node)
            proto.input[:] = [resolved(name) for name in proto.input]
            protos.append(proto)
        return Runnable(protos, feeds, resolved(self.target.name))

    def overridable(self) -> bool:
        """Whether a caller may override a constant that decides the movement."""
        if self.view.constants.frozen:
            return False
        tensors = (t for node in (*self.nodes, *self.arithmetic) for t in node.inputs if t.name)
        constants = (self.view.constants.of(tensor, self.scope) for tensor in tensors)
        return any(constant is not None and constant.overridable for constant in constants)

    @cached_property
    def arithmetic(self) -> tuple[gs.Node, ...]:
        """The nodes that compute shapes and indices for the movement."""
        found: list[gs.Node] = []
        waiting = list(self.nodes)
        seen = set(map(id, waiting))
        while waiting:
            for tensor in waiting.pop().inputs:
                if not self.view.is_data_free(tensor, self.scope):
                    continue
                for node in tensor.inputs:
                    if id(node) not in seen and self.scope.holds(node):
                        seen.add(id(node))
                        found.append(node)
                        waiting.append(node)
        return tuple(found)

    @cached_property
    def _on_the_way(self) -> frozenset[str]:
        """The names of all tensors that the data passes."""
        made = (tensor.name for node in self.nodes for tensor in node.outputs)
        return frozenset((self.source.name, *made))

    def outside(self) -> list[gs.Tensor]:
        """Tensors that are not on the way of the data, but whose shapes the arithmetic reads."""
        read = (node.inputs[0] for node in self.arithmetic if node.op == "Shape")
        return [tensor for tensor in read if self._is_outside(tensor)]

    def _is_outside(self, tensor: gs.Tensor) -> bool:
        """Whether ``tensor`` is data that is not on the way: only its shape can matter."""
        on_the_way = tensor.name in self._on_the_way
        return not on_the_way and not self.view.is_data_free(tensor, self.scope)
