"""A trial: a layer and its rewrite as two tiny models that compute exactly on small integers.

Weights, biases and inputs are integers so few and so small that every float32 sum is exact,
whatever its order. Both models must then agree bit for bit. This module draws the integers and
builds the two models; `proof.certificate` runs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.constants import Constant
from deployconv.graph.float32_twin import float32_twin
from deployconv.match import Original, Parameter, Quantized, UpsampleSite
from deployconv.polyphase import Polyphase
from deployconv.rewrites.base import Rewrite, Trial
from deployconv.rewrites.emit import Emitter

Array = NDArray[Any]

EXACT = 1 << 23
"""Sums of integers below this are exact in float32, with one bit to spare for the bias."""
SCALES = 8
"""Scales of a quantized parameter are drawn from 1 to this."""
AFFORDABLE = 200_000_000
"""Multiplications up to which a layer is run at its own size; larger ones are run smaller."""
ORACLE_INPUT, ORACLE_OUTPUT = "oracle_x", "oracle_y"
"""Names in the model of an `Oracle`."""
_LARGEST_DRAW = 64
_CONVERTED = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def bound_for(terms: Sequence[int], growth: int, multiplied: int) -> int:
    """The largest random integer with which every float32 sum stays exact.

    Args:
        terms: how many products each layer adds up.
        growth: by how much all other layers together may enlarge a value.
        multiplied: how many drawn integers are multiplied with each other.

    Returns:
        0 if not even integers of magnitude 1 are small enough.
    """
    largest = int((EXACT / prod(terms) / growth) ** (1 / multiplied))
    return min(_LARGEST_DRAW, largest)


@dataclass(frozen=True)
class Draws:
    """A source of random integers for one trial.

    Attributes:
        bound: the largest magnitude that is drawn.
        opset: version of the ONNX operators in the trial.
        rng: the random numbers.
        plain: True if layers that scale values must be replaced by Identity.
        exact: False if sums may be too large to be exact even so.
        alike: True if every channel must get the same factors.
        keeps_zero: True if a zero must stay a zero: additive constants are then zero.
        known: what was drawn for a name; layers that share a weight get the same integers.
    """

    bound: int
    opset: int
    rng: np.random.Generator
    plain: bool = False
    exact: bool = True
    alike: bool = False
    keeps_zero: bool = False
    known: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def fitting(
        cls,
        rng: np.random.Generator,
        opset: int,
        terms: Sequence[int],
        growth: int,
        multiplied: int,
        plain_growth: int = 1,
    ) -> Draws:
        """Choose the range of integers in which all sums are exact.

        ``plain_growth`` is the growth if no layer scales values; the others as in `bound_for`.
        """
        bound = bound_for(terms, growth, multiplied)
        if bound:
            return cls(bound, opset, rng)
        bound = bound_for(terms, plain_growth, multiplied)
        return cls(max(1, bound), opset, rng, plain=True, exact=bound > 0)

    def integers(self, shape: Sequence[int]) -> Array:
        """Random integers, none of them 0; if they are few, no two are equal."""
        few = np.array([*range(-self.bound, 0), *range(1, self.bound + 1)], np.float32)
        if prod(shape) <= few.size:
            return self.rng.permutation(few)[: prod(shape)].reshape(tuple(shape))
        return self.image(shape)

    def added(self, shape: Sequence[int]) -> Array:
        """Integers for an additive constant."""
        return np.zeros(tuple(shape), np.float32) if self.keeps_zero else self.integers(shape)

    def image(self, shape: Sequence[int]) -> Array:
        """Any integers from ``-bound`` to ``bound``, as float32."""
        return self.rng.integers(-self.bound, self.bound + 1, tuple(shape)).astype(np.float32)

    def powers(self, shape: Sequence[int], values: Sequence[float] = (-2, -1, 1, 2)) -> Array:
        """Random powers of two, by which a multiplication is exact; each as often as the others.

        If they are few, no two are equal, and one of them is neither 1 nor -1: a layer that
        multiplies by 1 alone may as well be left out, and so may a sign that Abs takes off later.
        """
        drawn = self.rng.permutation(np.array(values, np.float32))
        scales, signs = drawn[np.abs(drawn) != 1], drawn[np.abs(drawn) == 1]
        few = np.concatenate([scales[:1], signs[:1], scales[1:], signs[1:]])
        if self.alike:
            return np.broadcast_to(few[0], tuple(shape))
        return self.rng.permutation(np.resize(few, prod(shape))).reshape(tuple(shape))

    def of(self, name: str, shape: Sequence[int]) -> Array:
        """The random integers for the tensor ``name``, the same each time."""
        if name not in self.known:
            self.known[name] = self.integers(shape)
        return self.known[name]

    def constants(self, given: Mapping[int, Constant]) -> dict[int, Constant]:
        """Random integers for the constants of a node, by the position of the input."""
        return {
            position: constant_of(constant.name, self.of(constant.name, constant.shape))
            for position, constant in given.items()
        }

    def parameter(self, parameter: Parameter) -> Parameter:
        """``parameter`` with integers for its values."""
        if parameter.quantized is not None:
            return self._quantized(parameter, parameter.quantized)
        drawn = self.of(parameter.name, parameter.shape)
        return replace(parameter, dtype=drawn.dtype, read=partial(np.asarray, drawn), scaled=None)

    def bias(self, bias: Parameter | None) -> Parameter | None:
        """A bias with random integers, if there is a bias."""
        return None if bias is None else self.parameter(bias)

    def _quantized(self, parameter: Parameter, old: Quantized) -> Parameter:
        """Integers whose differences from the zero point are drawn, with whole scales."""
        drawn = self.integers(parameter.shape)
        if old.zero_point is None:
            # Without one it is 0, from which an unsigned type has no negative differences.
            drawn = np.abs(drawn) if old.dtype.kind == "u" else drawn
            zero_point = None
            shifted = drawn.astype(old.dtype)
        else:
            middle = 128 if old.dtype.kind == "u" else 0
            moved = self.rng.integers(-40, 41, old.zero_point.shape)
            zero_point = (middle + moved).astype(old.dtype)
            shift = old.along(zero_point.astype(np.int64), parameter.shape)
            shifted = (drawn.astype(np.int64) + shift).astype(old.dtype)
        scale = np.asarray(self.rng.integers(1, SCALES + 1, old.scale.shape), np.float32)
        values = drawn * old.along(scale, parameter.shape)
        quantized = replace(old, read=lambda: shifted, scale=scale, zero_point=zero_point)
        return replace(parameter, dtype=values.dtype, read=lambda: values, quantized=quantized)

    def product(self, parameter: Parameter, taps: Sequence[int]) -> Parameter:
        """``parameter``, one input channel per group, as an outer product of integers per axis."""
        channels = prod(parameter.shape) // prod(taps)
        drawn = self.integers((1 if self.alike else channels, sum(taps)))
        drawn = np.broadcast_to(drawn, (channels, sum(taps)))
        values = np.ones((channels, 1), np.float32)
        for factor in np.split(drawn, np.cumsum(taps)[:-1], axis=1):
            values = (values[:, :, None] * factor[:, None, :]).reshape(channels, -1)
        values = values.reshape(parameter.shape)
        return Parameter(parameter.name, values.shape, values.dtype, lambda: values)


def constant_of(name: str, values: Array) -> Constant:
    """A constant that holds ``values``."""
    return Constant(name, values.shape, values.dtype, partial(np.asarray, values))


def first_outputs(parameter: Parameter, channels: int, axis: int) -> Parameter:
    """``parameter`` for the first output ``channels`` of a layer of one group."""

    def cut(values: Array) -> Array:
        return values.take(range(channels), axis) if values.ndim > axis else values

    values, quantized = cut(parameter.read()), parameter.quantized
    if quantized is not None:
        kept = cut(quantized.read())
        scale, zero_point = quantized.scale, quantized.zero_point
        if scale.ndim:
            scale = scale[:channels]
            zero_point = None if zero_point is None else zero_point[:channels]
        quantized = replace(quantized, read=lambda: kept, scale=scale, zero_point=zero_point)
    return replace(parameter, shape=values.shape, read=lambda: values, quantized=quantized)


def trial_sizes(
    site: UpsampleSite, axes: Sequence[Polyphase], macs: int, original: Original
) -> tuple[int, ...]:
    """Spatial sizes of the input of a trial.

    They are the layer's own if these are known and cheap or the only ones that fit; else small
    and unequal ones, beyond the reach of all taps, so that borders, inside and exchanged axes show.
    ``macs`` are the multiplications for one input pixel.
    """
    if original.sizes is not None:
        return original.sizes
    known = [size for size in site.sizes if size is not None]
    if len(known) == site.rank and prod(known) * macs <= AFFORDABLE:
        return tuple(known)
    reach = [max(form.span, *form.reach) for form in axes]
    return tuple(
        size if size is not None and size < wanted else wanted
        for size, wanted in zip(site.sizes, (r + 3 + i for i, r in enumerate(reach)), strict=True)
    )


def build_trial(
    rewrite: Rewrite,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    feeds: Mapping[str, Array],
    parity_only: Iterable[str] = (),
    exact: bool = True,
    batch: int | None = 1,
) -> Trial:
    """Both models of a trial.

    Args:
        rewrite: with integers for weights; it writes the new nodes.
        nodes: the old nodes as they stand in the model, in an order in which they run.
        constants: by name, what the old nodes read, and what the new ones share with them.
        feeds: inputs by name.
        parity_only: labels of nodes that the trial does not cover.
        exact: False if its sums may be rounded: then it covers no node for certain.
        batch: that of the layer in the model, None if dynamic.
    """
    opset, (output,) = rewrite.scope.opset, rewrite.outputs
    if not exact:
        parity_only = map(rewrite.scope.label, rewrite.nodes)
    old = _model(nodes, constants, opset, output, feeds)
    number = count()
    emitter = Emitter(opset, lambda suffix: f"certificate/{suffix}_{next(number)}")
    rewrite.emit(emitter)
    made = dict(constants)
    exported = []
    for node in emitter.nodes:
        exported.append(OnnxExporter.export_node(node))
        for tensor in node.inputs:
            # What the new nodes share with the old ones is in ``constants``, as integers.
            if isinstance(tensor, gs.Constant) and tensor.name not in made:
                made[tensor.name] = tensor.values
    new = _model(exported, made, opset, output, feeds)
    missed = tuple(dict.fromkeys(parity_only))
    return Trial(old, new, feeds, output, missed, may_be_empty=not batch)


def oracle_model(
    node: NodeProto, constants: Mapping[str, Array], opset: int, image: Array
) -> ModelProto:
    """A model of ``node`` alone, which reads an image of this shape first."""
    alone = NodeProto()
    alone.CopyFrom(node)
    alone.input[0], alone.output[0] = ORACLE_INPUT, ORACLE_OUTPUT
    return _model([alone], constants, opset, ORACLE_OUTPUT, {ORACLE_INPUT: image})


def _model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    opset: int,
    output: str,
    feeds: Mapping[str, Array],
) -> ModelProto:
    read = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "certificate",
        [
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, *x.shape[1:]])
            for name, x in feeds.items()
        ],
        [onnx.helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in constants.items()
            if name in read
        ],
    )
    # IR version 8 allows initializers that are no inputs and is known to every runtime here.
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return float32_twin(model, _CONVERTED)
