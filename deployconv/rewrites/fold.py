"""Fold the affine layers after an upsampling layer into its weight and bias.

    layer(w, b) -> y * scale + shift                 becomes   layer(w * scale, b * scale + shift)
    layer(w, b) -> y - mean of y over the channels   becomes   layer(w - mean of w, b - mean of b)

The first covers BatchNormalization, Mul, Add, Sub and Div by constants; the second is how a
LayerNorm over channels begins. Runtimes fold the first into a Conv themselves, but they look for it
directly after the Conv and no longer find it once a shuffle stands between. Products and means are
computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.view import View
from deployconv.match import Parameter, UpsampleSite
from deployconv.rewrites.absorb import with_layer
from deployconv.rewrites.moved import moved_axes
from deployconv.rewrites.neighbours import is_known, is_stored, only_reader, reduces_channels
from deployconv.rewrites.stand_ins import channel_sum, copy_of, growth, stand_in
from deployconv.rewrites.trial import Draws

Array = NDArray[Any]

_OPERATORS = frozenset(["Add", "BatchNormalization", "Div", "Identity", "Mul", "Sub"])


@dataclass(frozen=True, eq=False)
class AffineFold:
    """A layer that scales and shifts each channel by constants (by input position).

    An Identity is one without any.
    """

    node: gs.Node
    constants: Mapping[int, Constant]
    parity_only: tuple[gs.Node, ...] = ()
    crops: bool = False

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.node,)

    @property
    def growth(self) -> int:
        """By how much its stand-in may enlarge values."""
        return growth(self.node, self.constants)

    @property
    def plain_growth(self) -> int:
        return growth(self.node, self.constants, plain=True)

    @property
    def values(self) -> Mapping[str, Array]:
        """The constants that its nodes read, by name."""
        return {known.name: known.read() for known in self.constants.values()}

    def into(self, site: UpsampleSite) -> UpsampleSite:
        """``site`` with the layer in its weight and bias."""
        if self.node.op == "Identity":
            return with_layer(site, self)
        scale, shift = affine(self.node, self.constants)
        name = site.bias.name if site.bias is not None else f"{site.output}/folded_bias"
        stored, before = site.weight.scaled or (site.weight, np.float64(1))
        read = partial(_shifted_bias, site, scale, shift)
        bias = Parameter(name, (site.channels[1],), site.weight.dtype, read)
        weight = replace(
            site.weight,
            read=partial(_scaled_weight, site, scale),
            scaled=(stored, np.asarray(before * scale)),
        )
        return replace(with_layer(site, self), weight=weight, bias=bias)

    def on_integers(self, draws: Draws, channels: tuple[int, int]) -> AffineFold:
        """Return the stand-in of this layer in a trial; see `AbsorbedLayer.on_integers`."""
        whole, kept = channels
        shapes = {
            at: tuple(kept if size == whole else size for size in known.shape)
            for at, known in self.constants.items()
        }
        found = stand_in(self.node, shapes, draws)
        return AffineFold(found.node, found.constants, () if found.exact else (self.node,))


@dataclass(frozen=True, eq=False)
class MeanFold:
    """The mean over channels and the Sub that takes it off, as a change of the weights.

    ``constants`` has the axes of ``mean``, if they are an input.
    """

    mean: gs.Node
    difference: gs.Node
    channels: int
    constants: Mapping[int, Constant]
    parity_only: tuple[gs.Node, ...] = ()
    crops: bool = False
    plain_growth: int = 1

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.mean, self.difference)

    @property
    def growth(self) -> int:
        """By how much its stand-in may enlarge values."""
        return self.channels + 1

    @property
    def values(self) -> Mapping[str, Array]:
        """The constants that its nodes read, by name."""
        return {known.name: known.read() for known in self.constants.values()}

    def into(self, site: UpsampleSite) -> UpsampleSite:
        """``site`` with the mean over output channels taken off its weight and bias."""
        axis = 1 if site.transposed else 0
        weight = replace(site.weight, read=partial(self._less, site.weight, axis), scaled=None)
        bias = site.bias
        if bias is not None:
            bias = replace(bias, read=partial(self._less, bias, 0))
        return replace(with_layer(site, self), weight=weight, bias=bias)

    def on_integers(self, draws: Draws, channels: tuple[int, int]) -> MeanFold | AffineFold:
        """Return its stand-in in a trial: the sum, which stays an integer, not the mean."""
        del channels
        if draws.plain:  # the sum would be too large: both models leave the layer out
            identity = copy_of(self.difference, "Identity", [self.difference.inputs[0]], {})
            return AffineFold(identity, {}, self.nodes)
        total, constants = channel_sum(self.mean, draws.opset)
        return replace(self, mean=total, constants=constants)

    def _less(self, parameter: Parameter, axis: int) -> Array:
        """The values less their mean along the output channels, in float64 and rounded once."""
        values = parameter.read()
        wide = values.astype(np.float64)
        taken = wide.mean if self.mean.op == "ReduceMean" else wide.sum
        return np.asarray((wide - taken(axis=axis, keepdims=True)).astype(values.dtype))


Fold = AffineFold | MeanFold


def fold_after(site: UpsampleSite, view: View) -> Fold | None:
    """The affine layer directly after ``site`` that can be folded into it, if there is one."""
    return _affine_after(site, view) or _mean_after(site, view)


def _scaled_weight(site: UpsampleSite, scale: Array) -> Array:
    """The weight in the layout that it had, each output channel times its scale."""
    values = site.weight.read()
    by_channel = np.broadcast_to(scale, site.channels[1])
    taps = (1,) * site.rank
    if site.transposed:
        # [C_in, C_out/group, ..]: a group of inputs makes a group of outputs.
        c_in, per_group = values.shape[:2]
        grouped = by_channel.reshape(site.group, 1, per_group)
        factors = np.repeat(grouped, c_in // site.group, axis=1).reshape(c_in, per_group, *taps)
    else:
        factors = by_channel.reshape(-1, 1, *taps)
    return np.asarray((values.astype(np.float64) * factors).astype(values.dtype))


def _shifted_bias(site: UpsampleSite, scale: Array, shift: Array) -> Array:
    given = 0.0 if site.bias is None else site.bias.read().astype(np.float64)
    values = np.broadcast_to(given * scale + shift, site.channels[1])
    return np.asarray(values.astype(site.weight.dtype))


def _affine_after(site: UpsampleSite, view: View) -> AffineFold | None:
    tensor, scope = site.nodes[-1].outputs[0], site.scope
    if site.channels_in_batch or site.weight.quantized is not None:
        return None
    node = only_reader(tensor, scope)
    if node is None or node.op not in _OPERATORS or len(node.outputs) != 1:
        return None
    if node.op == "Identity":
        return AffineFold(node, {})
    given = {at: one for at, one in enumerate(node.inputs) if one is not tensor}
    if not all(map(is_stored, given.values())):
        return None  # what must be computed may take reading a large tensor
    constants = {at: view.constants.of(one, scope) for at, one in given.items()}
    known = {at: constant for at, constant in constants.items() if constant is not None}
    if len(known) < len(constants):
        return None
    if any(map(view.constants.may_be_overridden, known.values())):
        return None
    if node.op == "BatchNormalization":
        # Before opset 7 it trains by default.
        if scope.opset < 7 or node.attrs.get("training_mode", 0):
            return None
        if moved_axes(site.tail, site.rank + 2)[:2] != (0, 1):
            return None
    elif not _fits_channels(known, site):
        return None
    found = affine(node, known)
    if found is None or not all(np.isfinite(values).all() for values in found):
        return None
    fits = all(values.shape in ((), (site.channels[1],)) for values in found)
    return AffineFold(node, known) if fits else None


def _fits_channels(constants: Mapping[int, Constant], site: UpsampleSite) -> bool:
    """Whether the one constant has one value, or one per channel, of the layer's own type."""
    (constant,) = constants.values()
    axes = moved_axes(site.tail, site.rank + 2)
    padded = (1,) * (len(axes) - len(constant.shape)) + constant.shape
    by_channel = len(padded) == len(axes) and prod(padded) == padded[axes.index(1)]
    return by_channel and constant.dtype == site.weight.dtype


def affine(node: gs.Node, constants: Mapping[int, Constant]) -> tuple[Array, Array]:
    """Scale and shift of an affine layer, float64, ``[C]`` or scalars."""
    if node.op == "BatchNormalization":
        gain, offset, mean, variance = (
            constants[at].read().astype(np.float64) for at in range(1, 5)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = gain / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        return scale, offset - mean * scale
    ((position, constant),) = constants.items()
    shape = () if prod(constant.shape) == 1 else (-1,)
    values = np.asarray(constant.read().astype(np.float64).reshape(shape))
    one, zero, unknown = (np.asarray(np.float64(value)) for value in (1, 0, np.nan))
    with np.errstate(divide="ignore"):
        if node.op == "Mul":
            return values, zero
        if node.op == "Div":
            return (np.asarray(one / values), zero) if position == 1 else (unknown, zero)
        if node.op == "Sub":
            return (one, -values) if position == 1 else (-one, values)
        return one, values


def _mean_after(site: UpsampleSite, view: View) -> MeanFold | None:
    """The mean over channels directly after ``site`` and the Sub that takes it off."""
    tensor, scope = site.nodes[-1].outputs[0], site.scope
    if site.channels_in_batch or site.weight.quantized is not None or site.group != 1:
        return None
    if site.tail:
        return None
    if tensor.name in scope.outputs or len(tensor.outputs) != 2:
        return None
    mean = next((node for node in tensor.outputs if node.op == "ReduceMean"), None)
    if mean is None or not is_known(mean, scope):
        return None
    axes = view.constants.fixed(mean.inputs[1], scope) if len(mean.inputs) > 1 else None
    if not reduces_channels(mean, axes, site.rank + 2):
        return None
    difference = only_reader(mean.outputs[0], scope)
    if difference is None or difference.op != "Sub" or difference.inputs[0] is not tensor:
        return None
    known = {} if axes is None else {1: axes}
    return MeanFold(mean, difference, site.channels[1], known)
