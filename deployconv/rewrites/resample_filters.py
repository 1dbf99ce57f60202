"""The filter along each axis of a Resize by whole factors, and what it reads and makes.

Along an axis the Resize is the same filter at every output (`resampling.resampling_filter`), if its
factor is whole, or 1 divided by a whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import frexp

import numpy as np

from deployconv.match import ResampleSite
from deployconv.match.resample_site import ResampledAxis
from deployconv.polyphase import Axis, without_shift
from deployconv.resampling import Filter, resampling_filter, resampling_matrix, whole_factor
from deployconv.results import Reason
from deployconv.rewrites.trial import Array

Filters = Mapping[int, Filter]
"""The filter of each axis that changes, by its position."""
_POWER_OF_TWO = 0.5
"""The fraction that ``frexp`` returns of a power of two."""
UNTOUCHED = Filter(Axis(1, 1, 1, 0, 0), np.ones(1))
"""What happens along an axis that does not change."""


def resized_axes(site: ResampleSite) -> list[ResampledAxis]:
    """The axes whose size changes; along the others the exact filter is the identity."""
    return [axis for axis in site.axes if axis.resized]


def filter_of(site: ResampleSite, axis: ResampledAxis) -> Filter | Reason:
    """The filter along one axis, or the reason why no filter is the same at every output."""
    factor = whole_factor(axis.scale)
    if factor is None:
        return Reason("non-integer-scale", f"its scale is {axis.scale:g}, which has no phases")
    found = resampling_filter(factor, site.how) if abs(factor) > 1 else None
    coordinates = site.how.coordinates
    # Where these differ from half_pixel depends on the size.
    single = coordinates == "pytorch_half_pixel" and (axis.outputs is None or axis.outputs == 1)
    uneven = coordinates == "half_pixel_symmetric" and (
        not site.by_sizes if axis.inputs is None else axis.inputs % -factor != 0
    )
    if found is None or (factor < 0 and (single or uneven)):
        text = f"its weights depend on the size, as its coordinates are {coordinates}"
    elif site.is_nearest and not _copies_alike(site, axis, found):
        text = f"float32 holds no {axis.scale:g}, and with it the phases would copy other pixels"
    else:
        return found
    return Reason("dynamic-sizes" if axis.inputs is None else "non-integer-scale", text)


def _copies_alike(site: ResampleSite, axis: ResampledAxis, found: Filter) -> bool:
    """Whether a nearest Resize copies the pixels that exact positions name.

    Those of a whole scale are: float32 holds a position that lies on a pixel or in the middle of
    two, and others are further from one than it rounds. The scale of an axis that shrinks is
    rounded itself, unless it is a power of two, so that is compared at the size of the image.
    """
    if axis.inputs is None or axis.outputs is None:
        return axis.scale > 1 or frexp(axis.scale)[0] == _POWER_OF_TWO
    exact = found.matrix(axis.inputs, axis.outputs)
    own = resampling_matrix(axis.inputs, axis.outputs, axis.scale, site.how)
    return bool((exact == own).all())


def edges_of(one: Filter) -> tuple[int, int]:
    """How often the pixels at the edge are repeated, (begin, end); 0 if zeros are read there."""
    return reach_of(one) if one.axis.edge else (0, 0)


def reach_of(one: Filter) -> tuple[int, int]:
    """How many pixels beyond the image a filter reads, (begin, end)."""
    if one.shrinks_by > 1:
        return -one.axis.origin, one.axis.taps - one.shrinks_by + one.axis.origin
    return without_shift(one.axis).reach


def axis_inside(axis: Axis, begin: int, end: int) -> Axis:
    """The same axis for an image that is padded already, so that nothing beyond it is read."""
    origin = axis.origin + axis.stride * begin
    extra = axis.extra - axis.stride * (begin + end)
    return replace(axis, origin=origin, extra=extra, edge=False)


def outputs_of(one: Filter, inputs: int) -> int:
    """How many outputs a filter makes of so many inputs."""
    return inputs * one.axis.stride // one.shrinks_by


def phase_weights(
    site: ResampleSite, axis: ResampledAxis, own: Filter, size: int
) -> tuple[Array, float]:
    """The matrix of an axis with the filter ``own``, and how far a runtime's may be from it.

    A runtime computes the position and the weights of each output in float32, while the phases have
    exact ones. So they may differ as `resampling_matrix` does, which rounds as it does, but by no
    more than the arithmetic can leave. ``size`` is the number of inputs if the model states none.
    """
    inputs, how = axis.inputs or size, site.how
    outputs, factor = outputs_of(own, inputs), own.axis.stride * own.shrinks_by
    exact = own.matrix(inputs, outputs)
    if how.mode == "nearest":
        return exact, 0.0
    besides = how.rounding(inputs, exact_positions=factor & (factor - 1) == 0)
    if how.mode == "linear":
        return exact, besides
    if how.exclude_outside or how.filters:  # the weights are divided by their sum
        least = np.abs(own.sums(inputs, outputs).sum(axis=1)).min()
        besides *= float((1 + np.abs(exact).sum(axis=1).max()) / least)
    rounded = resampling_matrix(inputs, outputs, axis.scale, how)
    return exact, min(besides, float(np.abs(rounded - exact).max()))
