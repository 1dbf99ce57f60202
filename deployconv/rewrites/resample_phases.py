"""An interpolating Resize by whole factors as phases, at any size.

    x -> Conv of stride n, for the axes that shrink by n -> Conv, shuffle, crop, for those that grow

Along each axis the Resize is the same filter at every output (`resampling.resampling_filter`). The
axes that grow are an upsampling layer with one input channel per group, whose kernel is the
product of their filters: it is planned as every other one (`conv.plan_conv`). What it reads beyond
the image is the pixel at the edge. In form ``separable`` each axis is a layer by itself, the last
one first.

With ``exclude_outside`` it reads zeros there, and the result is divided by what the same layers
make of an image of ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.match import Geometry, ImageAxes, Original, Parameter, ResampleSite, UpsampleSite
from deployconv.match.site import AxisMove, ResampledAxis
from deployconv.options import Form, Shuffle
from deployconv.polyphase import Axis
from deployconv.resampling import Filter, resampling_filter, whole_factor
from deployconv.results import Reason
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.conv_emit import conv_input, emit_conv
from deployconv.rewrites.emit import Emitter, conv_attributes
from deployconv.rewrites.resample_trial import SMALL, drawn, resample_trial
from deployconv.rewrites.trial import Array

Filters = Mapping[int, Filter]
"""The filter of each axis that changes, by its position."""

_MOST_AXES = 3
_SPARE = 3
"""Pixels of an axis in a trial, besides those that a filter reaches."""
_UNTOUCHED = Filter(Axis(1, 1, 1, 0, 0), np.ones(1))
"""What happens along an axis that does not change."""


@dataclass(frozen=True, eq=False)
class ResamplePhases(OfOneLayer[ResampleSite]):
    """One interpolating Resize as Convs of its phases.

    Attributes:
        filters: of each axis that changes.
        form: ``polyphase`` for all axes that grow at once, ``separable`` for one after the other.
        conv_form: form of the Convs.
        shuffle: the shuffle that is asked for.
    """

    filters: Filters
    form: Literal["polyphase", "separable"]
    conv_form: Form = "auto"
    shuffle: Shuffle = "auto"

    @property
    def summary(self) -> Summary:
        steps = self.steps(self.channels)
        shuffles = [step.shuffle for step in steps if isinstance(step, PolyphaseConv)]
        kernel = tuple(map(max, zip(*(step.conv_kernel for step in steps), strict=True)))
        return Summary(self.form, shuffles[0] if shuffles else None, kernel)

    @property
    def image(self) -> ImageAxes:
        """Which axes of the source are those of an image."""
        return _image_axes(self.site)

    @property
    def channels(self) -> int:
        """Channels of the image."""
        channels = self.image.of_tensor(self.site.shape)[1]
        assert channels is not None
        return channels

    def steps(self, channels: int) -> list[Step]:
        """The layers for an image of so many channels, in order."""
        steps = []
        for step in self.planned_steps(channels):
            assert not isinstance(step, Reason)
            steps.append(step)
        return steps

    def planned_steps(self, channels: int) -> Iterator[Step | Reason]:
        """The same, with the reason in place of a layer that cannot be written."""
        order = self.image.order or range(len(self.site.shape))
        filters = [
            self.filters.get(at, _UNTOUCHED) if at is not None else _UNTOUCHED for at in order[2:]
        ]
        sizes = list(self.image.of_tensor(self.site.shape))[2:]
        shrinking = [[one if one.shrinks_by > 1 else _UNTOUCHED for one in filters]]
        growing = [[one if one.axis.stride > 1 else _UNTOUCHED for one in filters]]
        if self.form == "separable":
            shrinking, growing = (list(_one_by_one(found[0])) for found in (shrinking, growing))
        for found in (*shrinking, *growing):
            if all(one is _UNTOUCHED for one in found):
                continue
            layer = self._layer(found, channels, sizes)
            if any(one.shrinks_by > 1 for one in found):
                yield Strided(layer, tuple(one.shrinks_by for one in found))
            else:
                yield plan_conv(layer, self.conv_form, self.shuffle)
            sizes = [
                None if size is None else size * one.axis.stride // one.shrinks_by
                for size, one in zip(sizes, found, strict=True)
            ]

    def _layer(
        self, filters: Sequence[Filter], channels: int, sizes: Sequence[int | None]
    ) -> UpsampleSite:
        """The upsampling layer that applies these filters to an image of these sizes."""
        site = self.site
        kernel: Array = reduce(np.multiply.outer, (one.taps for one in filters))
        values = np.broadcast_to(kernel, (channels, 1, *kernel.shape)).astype(site.dtype)
        stride = tuple(one.axis.stride for one in filters)
        return UpsampleSite(
            id=site.id,
            pattern=site.pattern,
            scope=site.scope,
            nodes=site.nodes,
            input=site.source,
            output=site.output,
            axes=tuple(one.axis for one in filters),
            geometry=Geometry(stride, None, None, channels),
            weight=Parameter("filter", values.shape, values.dtype, partial(np.asarray, values)),
            transposed=False,
            bias=None,
            batch=self.image.of_tensor(site.shape)[0],
            sizes=tuple(sizes),
            original=_no_original,
            input_axes=self.image,
        )

    def emit(self, emitter: Emitter) -> None:
        site, steps = self.site, self.steps(self.channels)
        image = conv_input(emitter, steps[0].site)
        made = _written(emitter, steps, image)
        if site.how.exclude_outside:
            parts = [emitter.ints("one", [1, 1]), emitter.spatial_shape(image)]
            shape = emitter.add("Concat", parts, axis=0)
            one = gs.Constant("one", np.ones(1, site.dtype))
            ones = emitter.add("ConstantOfShape", [shape], value=one)
            made = emitter.add("Div", [made, _written(emitter, self.steps(1), ones)])
        for move in _back(self.image, len(site.shape)):
            made = emitter.move_axes(made, move)
        emitter.finish(site.output)

    def at_sizes(self, sizes: Sequence[int]) -> ResamplePhases:
        """The rewrite itself: its Convs are the same at all sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        """The phases with integers for weights, and the weights against the runtime's."""
        site = self.site
        wanted = {
            at: one.axis.taps // one.axis.stride + _SPARE * one.shrinks_by + number
            for number, (at, one) in enumerate(self.filters.items())
        }
        sizes = [wanted.get(at, SMALL) for at in range(len(site.shape))]
        image = [
            wish if size is None else min(size, wish)
            for size, wish in zip(site.shape, sizes, strict=True)
        ]
        # What is dynamic in the model is so in the trial.
        known = [None if size is None else new for size, new in zip(site.shape, image, strict=True)]
        integers = {at: replace(one, taps=drawn(one.taps, rng)) for at, one in self.filters.items()}
        small = replace(site, shape=tuple(known))
        return resample_trial(
            replace(self, site=small, filters=integers),
            small,
            image,
            {at: one.sums(image[at], _after(one, image[at])) for at, one in integers.items()},
            {axis: self._weights(axis, sizes[axis.position]) for axis in site.axes},
            rng,
            divided=site.how.exclude_outside,
        )

    def _weights(self, axis: ResampledAxis, size: int) -> tuple[Array, float]:
        """The matrix of an axis, and how far the weights of a runtime may be from it.

        It has another position at each output, in float32, while the phases have few exact ones.
        """
        own, inputs = self.filters[axis.position], axis.inputs or size
        factor = own.axis.stride * own.shrinks_by
        rounded = factor & (factor - 1) > 0
        besides = 4 * float(np.finfo(np.float32).eps) * inputs if rounded else 0.0
        return own.matrix(inputs, _after(own, inputs)), besides


@dataclass(frozen=True, eq=False)
class Strided:
    """A Conv that makes one of every ``stride`` pixels along each axis.

    ``site`` has the filters, as a layer that changes no size.
    """

    site: UpsampleSite
    stride: tuple[int, ...]

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(axis.taps for axis in self.site.axes)

    def emit(self, emitter: Emitter, image: gs.Tensor) -> gs.Tensor:
        """Write it for ``image``."""
        pads = [
            (-axis.origin, axis.taps - stride + axis.origin)
            for axis, stride in zip(self.site.axes, self.stride, strict=True)
        ]
        edges, zeros = (
            [
                pad if axis.edge == edge else (0, 0)
                for axis, pad in zip(self.site.axes, pads, strict=True)
            ]
            for edge in (True, False)
        )
        attributes = conv_attributes(self.conv_kernel, zeros, self.site.group)
        weight = emitter.constant("weight", self.site.weight.read())
        inputs = [emitter.edge_pad(image, edges), weight]
        return emitter.add("Conv", inputs, strides=list(self.stride), **attributes)


Step = PolyphaseConv | Strided


def plan_phases(
    site: ResampleSite,
    form: Literal["polyphase", "separable"] = "polyphase",
    conv_form: Form = "auto",
    shuffle: Shuffle = "auto",
) -> ResamplePhases | Reason:
    """The phases of ``site``, or why it has none."""
    filters = {}
    for axis in site.axes:
        found = _filter(site, axis)
        if isinstance(found, Reason):
            return found
        filters[axis.position] = found
    planned = ResamplePhases(site, filters, form, conv_form, shuffle)
    image = planned.image.of_tensor(site.shape)
    if len(image) - 2 > _MOST_AXES:
        return Reason("unsupported-rank", "it has more than three axes besides batch and channels")
    if image[1] is None:
        return Reason("dynamic-sizes", "the number of its channels is not known")
    reasons = [step for step in planned.planned_steps(image[1]) if isinstance(step, Reason)]
    return reasons[0] if reasons else planned


def _filter(site: ResampleSite, axis: ResampledAxis) -> Filter | Reason:
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
        return Reason("dynamic-sizes" if axis.inputs is None else "non-integer-scale", text)
    return found


def _after(one: Filter, inputs: int) -> int:
    """How many outputs a filter makes of so many inputs."""
    return inputs * one.axis.stride // one.shrinks_by


def _image_axes(site: ResampleSite) -> ImageAxes:
    """The batch and the channels are axes that do not change, if there are such."""
    rank, changed = len(site.shape), {axis.position for axis in site.axes}
    if min(changed) >= 2:
        return ImageAxes()
    kept = [at for at in range(rank) if at not in changed]
    batch = 0 if 0 in kept else None
    channels = next((at for at in reversed(kept) if at != batch), None)
    spatial = [at for at in range(rank) if at not in (batch, channels)]
    return ImageAxes.of((batch, channels, *spatial))


def _back(image: ImageAxes, rank: int) -> Iterator[AxisMove]:
    """The moves from an image back to the axes of the tensor."""
    if image.added:
        yield AxisMove("Squeeze", image.added)
    if image.perm and image.perm != tuple(range(rank)):
        yield AxisMove("Transpose", tuple(np.argsort(image.perm).tolist()))


def _one_by_one(filters: Sequence[Filter]) -> Iterator[list[Filter]]:
    """One axis of ``filters`` at a time, the last first."""
    for axis in reversed(range(len(filters))):
        yield [one if at == axis else _UNTOUCHED for at, one in enumerate(filters)]


def _written(emitter: Emitter, steps: Sequence[Step], image: gs.Tensor) -> gs.Tensor:
    """Write the steps for ``image``; return what they make."""
    for step in steps:
        if isinstance(step, Strided):
            image = step.emit(emitter, image)
            continue
        layer = replace(step.site, input=image.name, input_axes=ImageAxes())
        emit_conv(emitter, replace(step, site=layer))
        image = emitter.nodes[-1].outputs[0]
    return image


def _no_original() -> Original:
    raise AssertionError("the trial of a Resize has old nodes of its own")
