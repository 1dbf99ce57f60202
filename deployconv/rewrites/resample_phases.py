"""A Resize by whole factors as phases, at any size.

    x -> Conv of stride n, for the axes that shrink by n -> Conv, shuffle, crop, for those that grow

Along each axis the Resize is the same filter at every output (`resample_filters`). The axes that
grow are an upsampling layer with one input channel per group, whose kernel is the product of their
filters: it is planned as every other one (`conv.plan_conv`). In form ``separable`` each axis is a
layer by itself, the last one first.

What is read beyond the image is the pixel at its edge: each step first repeats it, by a Pad or by
Slices and a Concat. With ``exclude_outside`` zeros are read there, and the result is divided by
what the same steps make of an image of ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import prod
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.match import Geometry, ImageAxes, Original, Parameter, ResampleSite, UpsampleSite
from deployconv.match.resample_site import ResampledAxis
from deployconv.match.site import AxisMove
from deployconv.options import Shuffle
from deployconv.resampling import Filter
from deployconv.results import Reason
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.conv_emit import conv_input, emit_conv, image_of, low_resolution_conv
from deployconv.rewrites.emit import Emitter, conv_attributes
from deployconv.rewrites.resample_filters import (
    UNTOUCHED,
    Filters,
    axis_inside,
    edges_of,
    filter_of,
    outputs_of,
    phase_weights,
    reach_of,
    resized_axes,
)
from deployconv.rewrites.resample_trial import SMALL, drawn, fits, resample_trial
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.rewrites.trial import Array

PhaseForm = Literal["polyphase", "separable"]
PHASE_FORMS: tuple[PhaseForm, ...] = ("polyphase", "separable")
Border = Literal["pad", "slices"]
"""How the pixels at the edge are repeated: by an edge Pad, or by Slices and a Concat."""

_FIRST_BFLOAT16_CONV = 22
"""The first opset whose Conv takes bfloat16."""
_MOST_AXES = 3
_SPARE = 3
"""Pixels of an axis in a trial, besides those that a filter reaches."""


@dataclass(frozen=True, eq=False)
class ResamplePhases(OfOneLayer[ResampleSite]):
    """One Resize as Convs of its phases.

    Attributes:
        filters: of each axis that changes.
        form: ``polyphase`` for all axes that grow at once, ``separable`` for one after the other.
        shuffle: the shuffle that is asked for.
        border: how the pixels at the edge are repeated.
        dense: True for one Conv of all channels, with zeros as weights between different ones;
            False for one group per channel.
    """

    filters: Filters
    form: PhaseForm
    shuffle: Shuffle = "auto"
    border: Border = "pad"
    dense: bool = False

    @property
    def summary(self) -> Summary:
        steps = self.steps(self.channels)
        convs = [step.conv for step in steps]
        shuffle = next((conv.shuffle for conv in convs if conv.shuffle is not None), None)
        kernel = tuple(map(max, zip(*(conv.conv_kernel for conv in convs), strict=True)))
        return Summary(self.form, shuffle, kernel)

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
            self.filters.get(at, UNTOUCHED) if at is not None else UNTOUCHED for at in order[2:]
        ]
        sizes = list(self.image.of_tensor(self.site.shape))[2:]
        shrinking = [[one if one.shrinks_by > 1 else UNTOUCHED for one in filters]]
        growing = [[one if one.axis.stride > 1 else UNTOUCHED for one in filters]]
        if self.form == "separable":
            shrinking, growing = (list(_one_by_one(found[0])) for found in (shrinking, growing))
        for found in (*shrinking, *growing):
            if all(one is UNTOUCHED for one in found):
                continue
            layer, edges = self._layer(found, channels, sizes), tuple(map(edges_of, found))
            if any(one.shrinks_by > 1 for one in found):
                yield Step(edges, Strided(layer, tuple(found)))
            else:
                planned = self._planned(layer)
                yield planned if isinstance(planned, Reason) else Step(edges, planned)
            sizes = [
                None if size is None else size * one.axis.stride // one.shrinks_by
                for size, one in zip(sizes, found, strict=True)
            ]

    def _planned(self, layer: UpsampleSite) -> PolyphaseConv | Reason:
        """Its Convs: one, or one per phase if DepthToSpace can then be that of any runtime."""
        joins = self.shuffle != "auto" and SHUFFLES[self.shuffle].joins is not None
        split = layer.group > 1 and (joins or self.shuffle == "dcr")
        return plan_conv(layer, "split" if split else "pad", self.shuffle)

    def _layer(
        self, filters: Sequence[Filter], channels: int, sizes: Sequence[int | None]
    ) -> UpsampleSite:
        """The layer that applies these filters to an image of these sizes, edges included."""
        site = self.site
        edges = [edges_of(one) for one in filters]
        kernel: Array = reduce(np.multiply.outer, (one.taps for one in filters))
        inputs = np.eye(channels) if self.dense else np.ones((channels, 1))
        values = np.multiply.outer(inputs, kernel).astype(site.dtype)
        stride = tuple(one.axis.stride for one in filters)
        return UpsampleSite(
            id=site.id,
            pattern=site.pattern,
            scope=site.scope,
            nodes=site.nodes,
            input=site.source,
            output=site.output,
            axes=tuple(
                axis_inside(one.axis, *pads) for one, pads in zip(filters, edges, strict=True)
            ),
            geometry=Geometry(stride, None, None, 1 if self.dense else channels),
            weight=Parameter("filter", values.shape, values.dtype, partial(np.asarray, values)),
            transposed=False,
            bias=None,
            batch=self.image.of_tensor(site.shape)[0],
            sizes=tuple(
                None if size is None else size + sum(pads)
                for size, pads in zip(sizes, edges, strict=True)
            ),
            original=_no_original,
            restrictions=site.restrictions,
            input_axes=self.image,
        )

    def emit(self, emitter: Emitter) -> None:
        site, steps = self.site, self.steps(self.channels)
        image = conv_input(emitter, steps[0].conv.site)
        made = self._written(emitter, steps, image)
        if site.how.exclude_outside:
            parts = [emitter.ints("one", [1, 1]), emitter.spatial_shape(image)]
            shape = emitter.add("Concat", parts, axis=0)
            one = gs.Constant("one", np.ones(1, site.dtype))
            ones = emitter.add("ConstantOfShape", [shape], value=one)
            made = emitter.add("Div", [made, self._written(emitter, self.steps(1), ones)])
        for move in _back(self.image, len(site.shape)):
            made = emitter.move_axes(made, move)
        emitter.finish(site.output)

    def _written(self, emitter: Emitter, steps: Sequence[Step], image: gs.Tensor) -> gs.Tensor:
        """Write the steps for ``image``; return what they make."""
        for step in steps:
            image = self._with_edges(emitter, step, image)
            if isinstance(step.conv, Strided):
                image = step.conv.emit(emitter, image)
                continue
            emit_conv(emitter, _reading(step.conv, image))
            image = emitter.nodes[-1].outputs[0]
        return image

    def write_phases(self, emitter: Emitter, order: Array) -> gs.Tensor:
        """Write the only Conv, without its shuffle; its output channels are in ``order``.

        The layer must be one that grows along all axes at once.
        """
        (step,) = self.steps(self.channels)
        assert isinstance(step.conv, PolyphaseConv)
        image = self._with_edges(emitter, step, gs.Variable(self.site.source))
        conv = _reading(step.conv, image)
        return image_of(emitter, conv, low_resolution_conv(emitter, conv, order))

    def _with_edges(self, emitter: Emitter, step: Step, image: gs.Tensor) -> gs.Tensor:
        """Repeat the pixels at the edge of ``image`` as often as ``step`` reads them."""
        repeat = emitter.edge_pad if self.border == "pad" else emitter.edge_concat
        return repeat(image, step.edges)

    def at_sizes(self, sizes: Sequence[int]) -> ResamplePhases:
        """The rewrite itself: its Convs are the same at all sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        """The phases with integers for weights, and the weights against the runtime's."""
        image = self.trial_shape()
        small, matrices = self.on_integers(rng, image)
        divided = self.site.how.exclude_outside
        return resample_trial(small, small.site, image, matrices, self.weights, rng, divided)

    def trial_shape(self) -> list[int]:
        """The shape of the image in a trial, larger than the reach of the filters if possible."""
        pairs = zip(self.site.shape, self._wanted_shape(), strict=True)
        return [wish if size is None else min(size, wish) for size, wish in pairs]

    def on_integers(
        self, rng: np.random.Generator, image: Sequence[int]
    ) -> tuple[ResamplePhases, dict[int, Array]]:
        """Return the same Convs with integers for weights, for an image of this shape.

        Also returns the integers of each axis as a matrix ``[outputs, inputs]``, by its position.
        """
        # What is dynamic in the model is so in the trial.
        pairs = zip(self.site.shape, image, strict=True)
        small = replace(
            self.site, shape=tuple(None if size is None else new for size, new in pairs)
        )
        integers = {at: replace(one, taps=drawn(one.taps, rng)) for at, one in self.filters.items()}
        matrices = {
            at: one.sums(image[at], outputs_of(one, image[at])) for at, one in integers.items()
        }
        return replace(self, site=small, filters=integers), matrices

    @property
    def weights(self) -> dict[ResampledAxis, tuple[Array, float]]:
        """The real matrix of each axis that changes, and how far a runtime's may be from it."""
        filters, sizes = self.filters, self._wanted_shape()
        return {
            axis: phase_weights(self.site, axis, filters[axis.position], sizes[axis.position])
            for axis in resized_axes(self.site)
        }

    def _wanted_shape(self) -> list[int]:
        """The shape that a trial asks for: unequal sizes, each beyond the reach of its filter."""
        wanted = {
            at: one.axis.taps // one.axis.stride + _SPARE * one.shrinks_by + number
            for number, (at, one) in enumerate(self.filters.items())
        }
        return [wanted.get(at, SMALL) for at in range(len(self.site.shape))]


@dataclass(frozen=True, eq=False)
class Strided:
    """A Conv that makes one of every few pixels along each axis that shrinks.

    ``site`` has the filters, as a layer that changes no size.
    """

    site: UpsampleSite
    filters: tuple[Filter, ...]
    shuffle: None = None

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(axis.taps for axis in self.site.axes)

    def emit(self, emitter: Emitter, image: gs.Tensor) -> gs.Tensor:
        """Write it for ``image``."""
        pads = [(0, 0) if one.axis.edge else reach_of(one) for one in self.filters]
        attributes = conv_attributes(self.conv_kernel, pads, self.site.group)
        weight = emitter.constant("weight", self.site.weight.read())
        attributes["strides"] = [one.shrinks_by for one in self.filters]
        return emitter.add("Conv", [image, weight], **attributes)


@dataclass(frozen=True)
class Step:
    """A Conv, and how often the pixels at the edge are repeated first, (begin, end) per axis."""

    edges: tuple[tuple[int, int], ...]
    conv: PolyphaseConv | Strided


def plan_phases(
    site: ResampleSite,
    form: PhaseForm = "polyphase",
    shuffle: Shuffle = "auto",
    border: Border = "pad",
    dense: bool = False,
) -> ResamplePhases | Reason:
    """Plan a Resize as Convs of its phases, or return the reason why that cannot be done."""
    if site.dtype == "bfloat16" and site.scope.opset < _FIRST_BFLOAT16_CONV:
        text = f"ONNX has a Conv in bfloat16 from opset {_FIRST_BFLOAT16_CONV} on"
        return Reason("unsupported-dtype", text)
    taps = prod(
        2 * site.how.support * max(axis.scale, 1 / axis.scale) for axis in resized_axes(site)
    )
    if taps > _LARGEST_KERNEL:
        return Reason("too-large", f"its phases have {taps:.3g} weights for each channel")
    filters = {}
    for axis in resized_axes(site):
        found = filter_of(site, axis)
        if isinstance(found, Reason):
            return found
        filters[axis.position] = found
    planned = ResamplePhases(site, filters, form, shuffle, border, dense)
    image = planned.image.of_tensor(site.shape)
    if len(image) - 2 > _MOST_AXES:
        return Reason("unsupported-rank", "it has more than three axes besides batch and channels")
    if image[1] is None:
        return Reason("dynamic-sizes", "the number of its channels is not known")
    for step in planned.planned_steps(image[1]):
        if isinstance(step, Reason):
            return step
    kernel = reduce(np.multiply.outer, (one.taps for one in filters.values()))
    several = len(planned.steps(image[1])) > 1
    if site.dtype == "bfloat16" and (several or not fits(kernel, site.dtype)):
        return Reason("unsupported-dtype", "bfloat16 has too few digits for its weights")
    return planned


_LARGEST_KERNEL = 1 << 20
"""Weights for each channel of the image."""


def _reading(conv: PolyphaseConv, image: gs.Tensor) -> PolyphaseConv:
    """The same Conv of another image, whose axes are in order."""
    return replace(conv, site=replace(conv.site, input=image.name, input_axes=ImageAxes()))


def _image_axes(site: ResampleSite) -> ImageAxes:
    """The batch and the channels are axes that do not change, if there are such."""
    rank, changed = len(site.shape), {axis.position for axis in resized_axes(site)}
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
        yield [one if at == axis else UNTOUCHED for at, one in enumerate(filters)]


def _no_original() -> Original:
    raise AssertionError("the trial of a Resize has old nodes of its own")
