"""The polyphase Conv: one upsampling layer as Conv, shuffle and crop.

    x -> Conv (phase-corrected weights) -> shuffle -> crop -> y

Its forms:

- ``crop``: every phase reads its own taps only, which gives the smallest kernel; the front of the
  result is cropped.
- ``pad``: nothing is cropped at the front; the kernel is the union of the taps of all phases.
- ``split``: nothing is cropped at the front; one Conv per phase, with its own taps only. If the
  kernel is no multiple of the stride, phases have unequal numbers of taps, and this saves the rest.
- ``conv``: no shuffle. Stride 1 on every axis is a plain Conv with the flipped kernel; a 1x1 Conv
  after a nearest Resize moves before it.

The nodes themselves are written by `conv_emit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match import UpsampleSite
from deployconv.match.operators import Operators, Window
from deployconv.options import Form, Shuffle
from deployconv.polyphase import (
    Axis,
    Polyphase,
    multiplications,
    phase_weights,
    smallest_kernel,
    split_multiplications,
    without_crop,
    without_shift,
)
from deployconv.results import FormName, Macs, Reason, Requantization, ShuffleName
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.conv_emit import emit_conv
from deployconv.rewrites.emit import Emitter, finish_layer, requantized
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.shuffles import SHUFFLES, choose_shuffle
from deployconv.rewrites.site_on_integers import SiteOnIntegers
from deployconv.rewrites.trial import AFFORDABLE, trial_sizes

Array = NDArray[Any]

_HELP = "--allow-requantize gives it new scales, --dequantize-weights makes it floats"
_LARGEST_BYTES = 1 << 31
"""Bytes of the largest tensor that a model file can hold."""
_FIRST_UPSAMPLE = 7
"""The first opset that can repeat pixels."""
_FIRST_CONCAT = 4
"""The first opset whose Concat runtimes have."""
_MOST_CONVS = 16
"""More Convs than this cost more to call than any taps are worth."""
_MOST_JOINED = 64
"""The same for a shuffle that joins images of one phase each: nothing else may be possible."""
_LARGE_IMAGE = 1 << 20
"""Elements from which on copying an image costs more than computing in blocks of channels gains."""
_MANY_INPUTS, _MANY_OUTPUTS = 32, 128
"""Channels with which a product of matrices runs about as fast as a Conv in blocks of channels."""


@dataclass(frozen=True, eq=False)
class PolyphaseConv(OfOneLayer[UpsampleSite]):
    """One upsampling layer as a low-resolution Conv, a shuffle and a crop.

    Attributes:
        site: the layer, with what it has absorbed.
        form: see the module.
        shuffle: None for stride 1, and if the result of the Conv is repeated instead.
        axes: the polyphase form of each spatial axis.
        layout: what the shuffle moves.
        macs: multiplications for one input pixel.
        repeat: how often each pixel is repeated per axis, in place of a shuffle.
        new_scales: True if an integer weight gets new scales.
        volume: True if the Conv is written as that of a volume one voxel deep. onnxruntime computes
            such a Conv as a product of matrices on the channels as they lie in memory, without the
            copies into blocks of channels and out of them.
        channel_split: True if a ``split`` layer computes one half of its output channels after the
            other, so that less must be held in memory at once.
    """

    form: FormName
    shuffle: ShuffleName | None
    axes: tuple[Polyphase, ...]
    layout: Layout
    macs: Macs
    repeat: tuple[int, ...] | None = None
    new_scales: bool = False
    volume: bool = False
    channel_split: bool = False

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Kernel of the low-resolution Conv; if there are several, the largest."""
        if self.form != "split":
            depth = (1,) if self.volume else ()
            return (*depth, *(form.span for form in self.axes))
        needed = ([form.taps_needed(q) for q in range(form.axis.stride)] for form in self.axes)
        return tuple(max(last - first + 1 for first, last in axis) for axis in needed)

    @property
    def copies(self) -> int:
        """Output channels of the Conv per output channel of the layer."""
        return prod(axis.axis.stride for axis in self.axes)

    @cached_property
    def summary(self) -> Summary:
        return Summary(self.form, self.shuffle, self.conv_kernel, self.macs, self._scale_error())

    @property
    def operators(self) -> Operators:
        site = self.site
        c_in, c_out = site.channels
        window = Window(
            transposed=False,
            kernel=self.conv_kernel,
            stride=(1,) * site.rank,
            dilation=(1,) * site.rank,
            pads=tuple(form.pads for form in self.axes),
            group=site.group,
            channels=(c_in, c_out * self.copies),
            dtype=site.dtype,
        )
        shuffle = SHUFFLES[self.shuffle] if self.shuffle is not None else None
        padded = [("Pad", site.rank + 2)] if any(any(form.edge_pads) for form in self.axes) else []
        return Operators(
            window,
            others=(*padded, *(shuffle.operators(site.stride) if shuffle is not None else ())),
            resize=self.repeat,
            pointwise_before=tuple(
                (op, None)
                for op in (
                    *site.input_axes.operators,
                    *(node.op for layers in site.pointwise_before for node in layers.nodes),
                )
            ),
            sizes=site.known_sizes,
            channels_to_batch=site.channels_in_batch,
        )

    def emit(self, emitter: Emitter) -> None:
        emit_conv(emitter, self)
        finish_layer(emitter, self.site)

    def at_sizes(self, sizes: Sequence[int]) -> PolyphaseConv:
        """The same rewrite for an input of other spatial sizes; what is dynamic stays so."""
        made = [size + form.rows for size, form in zip(sizes, self.axes, strict=True)]
        return replace(self, layout=self.layout.at_sizes(made))

    def on(self, site: UpsampleSite, channels: int) -> PolyphaseConv:
        """The same rewrite for a layer that differs in its weights and its output channels only."""
        return replace(self, site=site, layout=replace(self.layout, channels=channels))

    def trial(self, rng: np.random.Generator) -> Trial:
        exact = self.with_float_weights()
        site, original = exact.site, exact.site.original()
        most = max(self.macs.before, self.macs.after)
        sizes = trial_sizes(site, self.axes, most, original)
        own = SiteOnIntegers.of(site)
        draws = own.draws(rng, 2)
        channels = site.channels[1]
        if prod(sizes) * most > AFFORDABLE and site.group == 1:
            # All output channels are computed alike: the first ones do.
            channels = max(1, channels * AFFORDABLE // (prod(sizes) * most))
        drawn = own.draw(draws, channels)
        x = draws.image(site.input_shape(original, sizes))
        rewrite = exact.on(drawn.site, channels).at_sizes(sizes)
        return drawn.trial(rewrite, {site.input: x}, site.batch)

    def with_float_weights(self) -> PolyphaseConv:
        """This rewrite with float weights in place of integers that get new scales, for a trial.

        What can be exact there is where the weights go.
        """
        if not self.new_scales:
            return self
        floats = replace(self.site.weight, quantized=None)
        return replace(self, site=replace(self.site, weight=floats), new_scales=False)

    def _scale_error(self) -> Requantization | None:
        """How far new scales move the weights; None if integers stay as they are."""
        if not self.new_scales:
            return None
        values = self.site.weight.read().astype(np.float64)
        exact = phase_weights(self.site.kernel(values), self.axes)
        # One channel per phase, as the new Conv has them; their order does not matter here.
        by_channel = exact.reshape(-1, *exact.shape[1 + self.site.rank :])
        integers, scale = requantized(by_channel)
        spread = scale.astype(np.float64).reshape(-1, *[1] * (by_channel.ndim - 1))
        error = integers * spread - by_channel
        largest = float(np.abs(by_channel).max(initial=0.0)) or 1.0
        rms = float(np.sqrt(np.mean(error**2)))
        return Requantization(float(np.abs(error).max(initial=0.0)) / largest, rms / largest)


def plan_conv(
    site: UpsampleSite, form: Form = "auto", shuffle: Shuffle = "auto"
) -> PolyphaseConv | Reason:
    """The polyphase Conv for ``site``, or the reason why there is none.

    A ``shuffle`` that does not fit the layer (such as DepthToSpace for three axes) gives way to a
    portable one that does, and a form ``split`` to the one with fewer multiplications; the result
    says which. ``separable`` and ``matrix`` give way too: they are kinds of their own.
    """
    new_scales = site.weight.quantized is not None and not site.weight.quantized.by_output
    if new_scales and not site.requantize:
        text = f"its integer weight has a scale for each input channel; {_HELP}"
        return Reason("per-input-channel-scale", text)
    if site.repeats and site.scope.opset >= _FIRST_UPSAMPLE and form == shuffle == "auto":
        return replace(_conv_before_resize(site), new_scales=new_scales)
    if (needed := _weight_bytes(site)) > _LARGEST_BYTES:
        text = f"its low-resolution weight would take {needed / 1e9:.3g} GB"
        return Reason("too-large", text)
    joins = shuffle != "auto" and SHUFFLES[shuffle].joins is not None
    if form in ("separable", "matrix", "polyphase", "normalised") or (
        form == "split" and not _fits_split(site, joins)
    ):
        form = "auto"
    choose = smallest_kernel if form in ("auto", "crop") else without_shift
    if not site.restrictions.crops:
        choose = without_crop
    axes = tuple(choose(axis) for axis in site.axes)
    sums = site.weight.quantized is not None and any(axis.sums for axis in axes)
    if sums and not site.requantize:
        text = f"several taps of its integer weight are added, and sums leave its grid; {_HELP}"
        return Reason("needs-requantize", text)
    new_scales = new_scales or sums
    layout = _layout(site, axes)
    if site.phases == 1:
        macs = _macs(site, multiplications(axes))
        return PolyphaseConv(site, "conv", None, axes, layout, macs, new_scales=new_scales)
    # Images of one phase each are joined without a look at groups.
    apart = form == "split" and (joins or shuffle == "dcr")
    name = choose_shuffle(replace(layout, group=1) if apart else layout, shuffle)
    if isinstance(name, Reason):
        return name
    named: FormName = "crop" if any(axis.shift for axis in axes) else "pad"
    count = split_multiplications if form == "split" else multiplications
    chosen: FormName = named if form == "auto" else _as_named(form)
    planned = PolyphaseConv(
        site, chosen, name, axes, layout, _macs(site, count(axes)), new_scales=new_scales
    )
    return replace(planned, volume=_fits_volume(planned))


def has_integer_form(site: UpsampleSite) -> bool:
    """Whether the integers of the weight can be those of a new Conv, with their own scales."""
    quantized = site.weight.quantized
    if quantized is None or not quantized.by_output:
        return False
    return not any(smallest_kernel(axis).sums for axis in site.axes)


def _as_named(form: Form) -> FormName:
    """A form that was asked for, as reports name it."""
    assert form != "auto"
    return form


def _fits_volume(planned: PolyphaseConv) -> bool:
    """Whether copies into blocks of channels and out of them would cost more than blocks gain.

    The columns of a kernel with several taps must be written first, which does not pay for a
    product of few rows. With groups there would be one product per group.
    """
    site, layout = planned.site, planned.layout
    assert planned.shuffle is not None
    plain = SHUFFLES[planned.shuffle].plain_memory and planned.form != "split"
    if not plain or site.rank != 2 or site.group > 1 or site.weight.dtype != np.float32:
        return False
    made = layout.channels * planned.copies
    pointwise = all(form.span == 1 for form in planned.axes)
    large = layout.static is not None and made * prod(layout.static) >= _LARGE_IMAGE
    return large and site.channels[0] >= _MANY_INPUTS and (pointwise or made >= _MANY_OUTPUTS)


def _fits_split(site: UpsampleSite, joined: bool) -> bool:
    """Whether there are few phases, float weights, and a Concat."""
    few = 1 < site.phases <= (_MOST_JOINED if joined else _MOST_CONVS)
    return few and site.weight.quantized is None and site.scope.opset >= _FIRST_CONCAT


def _weight_bytes(site: UpsampleSite) -> int:
    """A lower bound of the size of the new weight in bytes."""
    c_in, c_out = site.channels
    spans = [max(1, without_shift(axis).span - 1) for axis in site.axes]
    return c_in // site.group * c_out * site.phases * prod(spans) * site.weight.stored.itemsize


def _conv_before_resize(site: UpsampleSite) -> PolyphaseConv:
    """Plan to run a 1x1 Conv before the pixels are repeated: it computes the same for each copy."""
    plain = tuple(Axis(1, 1, 1, 0, 0) for _ in site.axes)
    axes = tuple(without_shift(axis) for axis in plain)
    macs = _macs(site, multiplications(axes))
    return PolyphaseConv(site, "conv", None, axes, _layout(site, axes), macs, repeat=site.stride)


def _layout(site: UpsampleSite, axes: tuple[Polyphase, ...]) -> Layout:
    return Layout(
        channels=site.channels[1],
        stride=site.stride,
        sizes=tuple(
            None if size is None else size + form.rows
            for size, form in zip(site.sizes, axes, strict=True)
        ),
        crop=tuple(form.crop for form in axes),
        group=site.group,
        opset=site.scope.opset,
        dtype=site.weight.dtype.name,
        batch=site.batch,
        slices=site.restrictions.crops,
    )


def _macs(site: UpsampleSite, after: int) -> Macs:
    """Multiplications per input pixel; a ConvTranspose multiplies each input with each tap once."""
    c_in, c_out = site.channels
    stated = c_in // (site.geometry.group or 1) * c_out
    pairs = c_in // site.group * c_out
    taps = prod(axis.taps for axis in site.axes)
    before = taps if site.transposed else taps * site.phases
    return Macs(stated * before, pairs * after)
