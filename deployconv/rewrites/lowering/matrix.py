"""A layer whose kernels are one product, as a product of matrices along each axis.

    y = T_1 x T_2'                                            for two axes

``T`` is the polyphase matrix of an axis (`polyphase.matrix`): its rows are the phases, in the
order that they have in space, so there is nothing to shuffle, pad or crop. Most of it is zero.
Along the last axis that is multiplied all the same, by one matrix for all rows of the image;
along the others it is cut into blocks of rows, each with the rows of the image that it reads.
That pays where moving what a Conv makes would take longer: large strides, short rows. Products
with the zeros between add nothing, so the sums are those of `lowering.separable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import UpsampleSite
from deployconv.polyphase import Axis, Polyphase, matrix
from deployconv.results import Macs
from deployconv.rewrites.lowering.emit import Emitter
from deployconv.rewrites.lowering.lower import conv_input, write_parameter
from deployconv.rewrites.lowering.plan import Plan, plan_site
from deployconv.rewrites.lowering.separable import factors_of

Array = NDArray[Any]

_BLOCK = 8
"""Rows of the image to a block; with twice as many there is but one block."""


@dataclass(frozen=True)
class MatrixPlan:
    """``sizes`` are those of the input; ``macs`` are for one pixel of it, rounded up."""

    axes: tuple[Polyphase, ...]
    sizes: tuple[int, ...]
    macs: Macs
    form: Literal["matrix"] = "matrix"
    shuffle: None = None

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Taps that an output reads along each axis."""
        return tuple(form.span for form in self.axes)

    def resized(self, sizes: Sequence[int]) -> MatrixPlan:
        """The same plan for an input of other spatial sizes."""
        return replace(self, sizes=tuple(sizes))


def plan_matrix(site: UpsampleSite) -> MatrixPlan | None:
    """The plan for ``site``; None where its sizes vary, or its channels are no such product."""
    sizes = tuple(size for size in site.sizes if size is not None)
    found, whole = factors_of(site), plan_site(site, "crop")
    if found is None or not isinstance(whole, Plan) or len(sizes) < site.rank:
        return None
    alike = all((factor == factor[:1]).all() for factor in found)
    if not alike or site.channels[0] != site.channels[1]:
        return None
    total, image = 0, list(sizes)
    for axis, own in reversed(list(enumerate(site.axes))):
        lines = prod(image) // image[axis]
        band = matrix(own, np.ones(own.taps), image[axis])
        blocks = [band] if axis == site.rank - 1 else [part for part, _, _ in _blocks(own, band)]
        total += lines * sum(part.size for part in blocks)
        image[axis] = own.output_size(image[axis])
    after = -(-total * site.channels[1] // prod(sizes))
    return MatrixPlan(whole.axes, sizes, Macs(whole.macs.before, after))


def lower_matrix(
    site: UpsampleSite, plan: MatrixPlan, fresh: Callable[[str], str]
) -> list[gs.Node]:
    """The nodes that compute ``site.output`` from ``site.input``, the last axis first."""
    found = factors_of(site)
    assert found is not None
    emitter = Emitter(site.scope.opset, fresh)
    tensor, image = conv_input(emitter, site), list(plan.sizes)
    for axis, own in reversed(list(enumerate(site.axes))):
        band = matrix(own, found[axis][0], image[axis])
        if axis == site.rank - 1:
            tensor = emitter.add("MatMul", [tensor, emitter.constant("matrix", band.T)])
        elif site.rank == 2:
            tensor = _down(emitter, tensor, own, band)
        else:
            tensor = emitter.reshape(tensor, [0, -1, image[axis], prod(image[axis + 1 :])])
            tensor = _down(emitter, tensor, own, band)
            made = [*image[:axis], len(band), *image[axis + 1 :]]
            tensor = emitter.reshape(tensor, [0, -1, *made])
        image[axis] = len(band)
    if site.bias is not None:
        by_channel = (-1, *(1,) * site.rank)
        bias = write_parameter(emitter, "bias", site.bias, site.id, lambda v: v.reshape(by_channel))
        emitter.add("Add", [tensor, bias])
    return emitter.finish(site.output)


def _down(emitter: Emitter, tensor: gs.Tensor, axis: Axis, band: Array) -> gs.Tensor:
    """``band`` times ``tensor``, ``[N, images, rows, columns]``, block by block."""
    made = []
    for block, first, last in _blocks(axis, band):
        rows = tensor
        if (first, last) != (0, band.shape[1]):
            rows = emitter.slice(tensor, [first], [last], [2])
        made.append(emitter.add("MatMul", [emitter.constant("matrix", block), rows]))
    return made[0] if len(made) == 1 else emitter.add("Concat", made, axis=2)


def _blocks(axis: Axis, band: Array) -> Iterator[tuple[Array, int, int]]:
    """Rows of ``band`` that lie together, without its columns of zeros, and which columns."""
    outputs, inputs = band.shape
    count = max(1, inputs // _BLOCK) if inputs > 2 * _BLOCK else 1
    starts = [block * _BLOCK * axis.stride for block in range(count)]
    for start, end in zip(starts, [*starts[1:], outputs], strict=True):
        used = np.flatnonzero(band[start:end].any(axis=0))
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        yield band[start:end, first:last], first, last
