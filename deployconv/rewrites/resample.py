"""An interpolating Resize as products with matrices: ``y = M_1 x M_2'`` for two axes.

Along each axis the Resize is a banded matrix (`resampling`), and its sizes must be known. The last
axis takes one product from the right. Another one takes a product from the left, of all axes after
it at once. There the matrix is cut into blocks of rows, each with the part of the image that it
reads, as most of the matrix is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import floor, prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto, helper

from deployconv.match import ResampleSite
from deployconv.match.site import ResampledAxis
from deployconv.resampling import resampling_matrix
from deployconv.results import Reason
from deployconv.rewrites.base import OfOneLayer, Oracle, Summary, Trial
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.trial import Draws, build_trial, oracle_model

Array = NDArray[Any]
Matrix = Callable[[ResampledAxis], Array]

_BLOCK = 8
"""Rows of the image in a block; an image of up to twice as many is one block."""
_ULPS = 4
"""How many roundings the weights of the runtime may be off: each is a sum of a few products."""
_SMALL = 3
"""Size of an axis that does not change, in a trial."""


@dataclass(frozen=True, eq=False)
class Resample(OfOneLayer[ResampleSite]):
    """One interpolating Resize as a product along each axis that it changes.

    ``matrix`` returns that of an axis, float64 ``[outputs, inputs]``.
    """

    matrix: Matrix

    @property
    def summary(self) -> Summary:
        spans = [_span(self.matrix(axis)) for axis in self.site.axes]
        return Summary("matrix", None, tuple(spans))

    def emit(self, emitter: Emitter) -> None:
        self.write(emitter, gs.Variable(self.site.source))
        emitter.finish(self.site.output)

    def write(self, emitter: Emitter, tensor: gs.Tensor) -> gs.Tensor:
        """The products with another image of the same sizes, which may have other channels."""
        site = self.site
        shape = list(site.shape)
        # An axis that shrinks leaves less to the others.
        for axis in sorted(site.axes, key=lambda axis: axis.outputs / axis.inputs):
            band = self.matrix(axis).astype(site.dtype)
            tensor = _along(emitter, tensor, shape, axis.position, band)
            shape[axis.position] = axis.outputs
        return tensor

    def at_sizes(self, sizes: Sequence[int]) -> Resample:
        """The rewrite itself: its matrices are those of its own sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        """Products with integers in place of the weights, and the weights against the runtime's."""
        site = self.site
        shape = tuple(_SMALL if size is None else size for size in site.shape)
        drawn = {axis: _drawn(self.matrix(axis), rng) for axis in site.axes}
        resized = {axis.position for axis in site.axes}
        kept = tuple(size if at in resized else min(size, _SMALL) for at, size in enumerate(shape))
        small = replace(site, shape=kept)
        nodes, constants = _one_by_one(small, drawn)
        x = Draws(1 << 8, site.scope.opset, rng).image(kept)
        trial = build_trial(Resample(small, drawn.__getitem__), nodes, constants, {site.source: x})
        oracles = [self.oracle(axis) for axis in site.axes]
        missing = () if all(oracles) else (site.scope.label(site.layer),)
        found = tuple(oracle for oracle in oracles if oracle is not None)
        return replace(trial, oracles=found, parity_only=missing)

    def oracle(self, axis: ResampledAxis) -> Oracle | None:
        """The Resize itself on unit impulses along one axis; its output is the matrix.

        None if it would give another number of outputs alone than among the other axes.
        """
        site, rank = self.site, len(self.site.shape)
        if not site.by_sizes and floor(np.float32(axis.inputs) * np.float32(axis.scale)) != (
            axis.outputs
        ):
            return None
        beside = 0 if axis.position else 1
        shape, target, scales = [1] * rank, [1] * rank, [1.0] * rank
        shape[axis.position], target[axis.position] = axis.inputs, axis.outputs
        scales[axis.position] = axis.scale
        shape[beside] = target[beside] = axis.inputs
        node = NodeProto()
        node.CopyFrom(site.scope.proto.node[site.scope.index(site.layer)])
        constants = resized_to(node, target if site.by_sizes else None, scales)
        impulses = np.eye(axis.inputs, dtype=np.float32).reshape(shape)
        expected = self.matrix(axis)
        if axis.position > beside:
            expected = expected.T
        model = oracle_model(node, constants, site.scope.opset, impulses)
        largest = np.abs(expected).sum(axis=0 if axis.position > beside else 1).max()
        atol = _ULPS * float(np.finfo(np.float32).eps) * float(largest)
        return Oracle(model, impulses, expected.reshape(target), atol)


def plan_resample(site: ResampleSite) -> Resample | Reason:
    """The products that ``site`` is, or why it stays."""
    largest = max(axis.inputs * axis.outputs for axis in site.axes)
    if largest > _LARGEST_MATRIX:
        return Reason("too-large", "a matrix of its sizes is larger than the image is worth")
    for axis in site.axes:
        after = site.shape[axis.position + 1 :]
        if any(size is None for size in after):
            return Reason("dynamic-sizes", "a size after an axis that it changes is not known")
    return Resample(site, partial(_matrix, site))


_LARGEST_MATRIX = 1 << 25
"""Elements of a matrix: 128 MiB in float32."""


def _matrix(site: ResampleSite, axis: ResampledAxis) -> Array:
    if all(one.inputs == one.outputs for one in site.axes):
        return np.eye(axis.inputs)  # onnxruntime copies an image that keeps its size
    return resampling_matrix(axis.inputs, axis.outputs, axis.scale, site.how)


def _span(band: Array) -> int:
    """How many inputs an output reads at most."""
    return int((band != 0).sum(axis=1).max())


def _along(
    emitter: Emitter, tensor: gs.Tensor, shape: Sequence[int | None], at: int, band: Array
) -> gs.Tensor:
    """Multiply axis ``at`` of a tensor of this shape by a banded matrix."""
    after = len(shape) - 1 - at
    if after == 0:
        return emitter.add("MatMul", [tensor, emitter.constant("matrix", band.T)])
    if after == 1:
        return _down(emitter, tensor, at, band)
    # A 0 keeps the size of the axis at its place, which may be dynamic, or be 0.
    rest = [size for size in shape[at + 1 :] if size is not None]
    outputs, inputs = band.shape
    flat = emitter.reshape(tensor, [*[0] * at, inputs, prod(rest)])
    made = _down(emitter, flat, at, band)
    return emitter.reshape(made, [*[0] * at, outputs, *rest])


def _down(emitter: Emitter, tensor: gs.Tensor, at: int, band: Array) -> gs.Tensor:
    """Multiply the last axis but one, which is ``at``, by a banded matrix, block by block."""
    made = []
    for block, first, last in _blocks(band):
        rows = tensor
        if (first, last) != (0, band.shape[1]):
            rows = emitter.slice(tensor, [first], [last], [at])
        made.append(emitter.add("MatMul", [emitter.constant("matrix", block), rows]))
    return made[0] if len(made) == 1 else emitter.add("Concat", made, axis=at)


def _blocks(band: Array) -> Iterator[tuple[Array, int, int]]:
    """Cut a banded matrix into blocks of rows without the columns of zeros."""
    outputs, inputs = band.shape
    count = max(1, inputs // _BLOCK) if inputs > 2 * _BLOCK else 1
    bounds = [block * outputs // count for block in range(count + 1)]
    for start, end in pairwise(bounds):
        if start == end:
            continue
        used = np.flatnonzero(band[start:end].any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        yield band[start:end, first:last], first, last


def _drawn(band: Array, rng: np.random.Generator) -> Array:
    """Small integers where ``band`` has weights."""
    return np.where(band != 0, rng.integers(1, 9, band.shape), 0).astype(np.float64)


def _one_by_one(
    site: ResampleSite, matrices: dict[ResampledAxis, Array]
) -> tuple[list[NodeProto], dict[str, Array]]:
    """The same products, each along the last axis of a transposed image."""
    nodes, constants, name = [], {}, site.source
    rank = len(site.shape)
    for number, axis in enumerate(site.axes):
        order = [at for at in range(rank) if at != axis.position] + [axis.position]
        back = np.argsort(order).tolist()
        matrix, moved, made = (f"trial/{number}/{kind}" for kind in ("matrix", "moved", "made"))
        result = site.output if axis is site.axes[-1] else f"trial/{number}/result"
        constants[matrix] = np.ascontiguousarray(matrices[axis].T, np.float32)
        nodes += [
            helper.make_node("Transpose", [name], [moved], perm=order),
            helper.make_node("MatMul", [moved, matrix], [made]),
            helper.make_node("Transpose", [made], [result], perm=back),
        ]
        name = result
    return nodes, constants


def resized_to(
    node: NodeProto, sizes: Sequence[int] | None, scales: Sequence[float]
) -> dict[str, Array]:
    """Let ``node`` take these sizes, or else scales, of all axes; returns its constants."""
    kept = [
        given
        for given in node.attribute
        if given.name not in ("axes", "scales", "keep_aspect_ratio_policy")
    ]
    stated = any(given.name == "scales" for given in node.attribute)
    del node.attribute[:]
    node.attribute.extend(kept)
    old = len(node.input)
    del node.input[1:]
    if stated:
        node.attribute.append(helper.make_attribute("scales", [float(one) for one in scales]))
        return {}
    if old == 2:  # the image and the scales
        node.input.append("scales")
        return {"scales": np.array(scales, np.float32)}
    # The region may be left out from opset 13 on, and may be empty in all.
    constants: dict[str, Array] = {"roi": np.zeros(0, np.float32)}
    if sizes is None:
        node.input.extend(["roi", "scales"])
        return {**constants, "scales": np.array(scales, np.float32)}
    node.input.extend(["roi", "no_scales", "sizes"])
    empty = np.zeros(0, np.float32)
    return {**constants, "no_scales": empty, "sizes": np.array(sizes, np.int64)}
