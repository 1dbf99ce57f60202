"""The matrix form: one product with a banded matrix per axis.

    y = T_1 x T_2'                                            for two axes

It fits a depthwise layer whose kernels are all the same outer product. ``T`` is the polyphase
matrix of an axis (`polyphase.matrix`): its rows are the phases in the order that they have in
space, so nothing is shuffled, padded or cropped. Most of it is zero. Along the last axis it is
multiplied all the same, by one matrix for all rows of the image. Along the other axes it is cut
into blocks of rows, each with the rows of the image that it reads. That pays if moving the result
of a Conv would take longer: for large strides and short rows. Products with zeros add nothing, so
the sums are those of the separable form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match import UpsampleSite
from deployconv.polyphase import Axis, Polyphase, matrix
from deployconv.results import Macs, Reason
from deployconv.rewrites.banded import BLOCK, block_count, blocks, multiply_rows
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.conv import plan_conv
from deployconv.rewrites.conv_emit import conv_input
from deployconv.rewrites.emit import Emitter, finish_layer, write_parameter
from deployconv.rewrites.separable import factors_of, product_trial

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class MatrixProduct(OfOneLayer[UpsampleSite]):
    """One upsampling layer as a product of matrices along each axis.

    Attributes:
        site: the layer.
        axes: the polyphase form of each axis.
        sizes: spatial sizes of the input.
        macs: multiplications for one input pixel, rounded up.
    """

    axes: tuple[Polyphase, ...]
    sizes: tuple[int, ...]
    macs: Macs

    @property
    def summary(self) -> Summary:
        kernel = tuple(form.span for form in self.axes)  # taps that an output reads
        return Summary("matrix", None, kernel, self.macs)

    def emit(self, emitter: Emitter) -> None:
        site, found = self.site, factors_of(self.site)
        assert found is not None
        tensor, image = conv_input(emitter, site), list(self.sizes)
        for axis, own in reversed(list(enumerate(site.axes))):
            band = matrix(own, found[axis][0], image[axis])
            size, image[axis] = image[axis], len(band)
            if axis == site.rank - 1:
                tensor = emitter.add("MatMul", [tensor, emitter.constant("matrix", band.T)])
                continue
            if site.rank > 2:
                lines = [site.channels[1] * prod(image[:axis]), size]
                tensor = emitter.reshape(tensor, [0, *lines, prod(image[axis + 1 :])])
            tensor = multiply_rows(emitter, tensor, 2, band, _starts(own, size))
            if site.rank > 2:
                tensor = emitter.reshape(tensor, [0, site.channels[1], *image])
        if site.bias is not None:
            by_channel = (-1, *(1,) * site.rank)
            bias = write_parameter(
                emitter, "bias", site.bias, site.id, lambda values: values.reshape(by_channel)
            )
            emitter.add("Add", [tensor, bias])
        finish_layer(emitter, site)

    def at_sizes(self, sizes: Sequence[int]) -> MatrixProduct:
        """The same rewrite for an input of other spatial sizes."""
        return replace(self, sizes=tuple(sizes))

    def on(self, site: UpsampleSite) -> MatrixProduct:
        """The same rewrite for a layer that differs in its weights only."""
        return replace(self, site=site)

    def trial(self, rng: np.random.Generator) -> Trial:
        return product_trial(self, rng, alike=True)


def plan_matrix(site: UpsampleSite) -> MatrixProduct | None:
    """The matrix form of ``site``.

    None if its sizes are dynamic, or if its channels do not all have the same product for a kernel.
    """
    sizes = tuple(size for size in site.sizes if size is not None)
    found, whole = factors_of(site), plan_conv(site, "crop")
    if found is None or isinstance(whole, Reason) or len(sizes) < site.rank:
        return None
    alike = all((factor == factor[:1]).all() for factor in found)
    if not alike or site.channels[0] != site.channels[1]:
        return None
    total, image = 0, list(sizes)
    for axis, own in reversed(list(enumerate(site.axes))):
        lines = prod(image) // image[axis]
        band = matrix(own, np.ones(own.taps), image[axis])
        cut = [block for block, _, _ in blocks(band, _starts(own, image[axis]))]
        total += lines * sum(one.size for one in ([band] if axis == site.rank - 1 else cut))
        image[axis] = own.output_size(image[axis])
    after = -(-total * site.channels[1] // prod(sizes))
    return MatrixProduct(site, whole.axes, sizes, Macs(whole.macs.before, after))


def _starts(axis: Axis, size: int) -> list[int]:
    """The first output of each block of rows, of an image of so many rows."""
    return [block * BLOCK * axis.stride for block in range(block_count(size))]
