"""A Resize as products with matrices: ``y = M_1 x M_2'`` for two axes.

Along each axis the Resize is a banded matrix (`resampling`), and its sizes must be known. The last
axis takes one product from the right. Another one takes a product from the left, of all axes after
it at once. There the matrix is cut into blocks of rows, each with the part of the image that it
reads, as most of the matrix is zero. For a target that takes no constant from the left, Transposes
put each axis last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import ResampleSite
from deployconv.match.resample_site import ResampledAxis
from deployconv.options import Form, Shuffle
from deployconv.resampling import resampling_matrix
from deployconv.results import Reason
from deployconv.rewrites.banded import block_count, multiply_rows
from deployconv.rewrites.base import OfOneLayer, Rewrite, Summary, Trial
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.resample_phases import plan_phases
from deployconv.rewrites.resample_trial import SMALL, drawn, fits, resample_trial

Array = NDArray[Any]
Matrix = Callable[[ResampledAxis], Array]


@dataclass(frozen=True, eq=False)
class Resample(OfOneLayer[ResampleSite]):
    """One Resize as a product along each axis that it changes.

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
        for axis in sorted(site.axes, key=lambda axis: axis.sizes[1] / axis.sizes[0]):
            band = self.matrix(axis).astype(site.dtype)
            along = _along if site.restrictions.matrix_first else _along_turned
            tensor = along(emitter, tensor, shape, axis.position, band)
            _, shape[axis.position] = axis.sizes
        return tensor

    def at_sizes(self, sizes: Sequence[int]) -> Resample:
        """The rewrite itself: its matrices are those of its own sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        """Products with integers in place of the weights, and the weights against the runtime's."""
        site = self.site
        resized = {axis.position: axis.sizes[0] for axis in site.axes}
        shape = [resized.get(at, SMALL) for at in range(len(site.shape))]
        real = {axis: self.matrix(axis) for axis in site.axes}
        integers = {axis: drawn(matrix, rng) for axis, matrix in real.items()}
        known = [None if size is None else new for size, new in zip(site.shape, shape, strict=True)]
        small = replace(site, shape=tuple(known))
        return resample_trial(
            Resample(small, integers.__getitem__),
            small,
            shape,
            {axis.position: matrix for axis, matrix in integers.items()},
            {axis: (matrix, 0.0) for axis, matrix in real.items()},
            rng,
        )


def plan_resample(
    site: ResampleSite, form: Form = "auto", shuffle: Shuffle = "auto"
) -> Rewrite | Reason:
    """Plan a Resize in the form that was asked for, or in another one if that does not fit.

    ``auto`` is products with matrices, or phases if sizes are dynamic.
    """
    if form == "polyphase" or form == "separable":
        phases = plan_phases(site, form, shuffle=shuffle)
        if not isinstance(phases, Reason):
            return phases
    products = plan_products(site)
    if form == "matrix" or not isinstance(products, Reason):
        return products
    return plan_phases(site, shuffle=shuffle)


def plan_products(site: ResampleSite) -> Resample | Reason:
    """Plan a Resize as products with matrices, or return the reason why it stays."""
    if site.dtype == "bfloat16" and len(site.axes) > 1:
        text = "between two products its image would be rounded to bfloat16 once more"
        return Reason("unsupported-dtype", text)
    for axis in site.axes:
        if axis.inputs is None or axis.outputs is None:
            return Reason("dynamic-sizes", "a size that it changes is dynamic, its matrix is not")
        after = site.shape[axis.position + 1 :]
        if any(size is None for size in after):
            return Reason("dynamic-sizes", "a size after an axis that it changes is not known")
        if axis.inputs * axis.outputs > _LARGEST_MATRIX:
            return Reason("too-large", "a matrix of its sizes is larger than the image is worth")
    planned = Resample(site, partial(_matrix, site))
    if not all(fits(planned.matrix(axis), site.dtype) for axis in site.axes):
        return Reason("unsupported-dtype", "bfloat16 has too few digits for its weights")
    return planned


_LARGEST_MATRIX = 1 << 25
"""Elements of a matrix: 128 MiB in float32."""


def _matrix(site: ResampleSite, axis: ResampledAxis) -> Array:
    inputs, outputs = axis.sizes
    if all(one.inputs == one.outputs for one in site.axes):
        return np.eye(inputs)  # onnxruntime copies an image that keeps its size
    return resampling_matrix(inputs, outputs, axis.scale, site.how)


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
    outputs, inputs = band.shape
    count = block_count(inputs)
    starts = [block * outputs // count for block in range(count)]
    if after == 1:
        return multiply_rows(emitter, tensor, at, band, starts)
    # A 0 keeps the size of the axis at its place, which may be dynamic, or be 0.
    rest = [size for size in shape[at + 1 :] if size is not None]
    flat = emitter.reshape(tensor, [*[0] * at, inputs, prod(rest)])
    made = multiply_rows(emitter, flat, at, band, starts)
    return emitter.reshape(made, [*[0] * at, outputs, *rest])


def _along_turned(
    emitter: Emitter, tensor: gs.Tensor, shape: Sequence[int | None], at: int, band: Array
) -> gs.Tensor:
    """Multiply axis ``at`` as `_along` does, with the matrix as the second input."""
    last = len(shape) - 1
    product = [emitter.constant("matrix", band.T)]
    if at == last:
        return emitter.add("MatMul", [tensor, *product])
    order = list(range(last + 1))
    order[at], order[last] = last, at
    turned = emitter.add("Transpose", [tensor], perm=order)
    return emitter.add("Transpose", [emitter.add("MatMul", [turned, *product])], perm=order)
