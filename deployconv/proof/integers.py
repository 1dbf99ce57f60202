"""Small integers for a certificate, so few and so small that every float32 sum is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.match import Parameter, Quantized

Array = NDArray[Any]

EXACT = 1 << 23
"""Sums of integers below this are exact in float32, with a bit to spare for the bias."""
SCALES = 8
"""Scales of a quantized parameter are 1 to this."""


@dataclass(frozen=True)
class Draws:
    """Integers up to ``bound``; what layers share, by its name, stays one."""

    bound: int
    rng: np.random.Generator
    known: dict[str, Array]

    def of(self, name: str, shape: tuple[int, ...]) -> Array:
        if name not in self.known:
            self.known[name] = distinct(shape, self.bound, self.rng)
        return self.known[name]

    def instead_of(self, parameter: Parameter) -> Parameter:
        if parameter.quantized is not None:
            return integers(parameter, self.bound, self.rng)
        drawn = self.of(parameter.name, parameter.shape)
        return replace(parameter, dtype=drawn.dtype, read=partial(np.asarray, drawn))


def constant_of(name: str, values: Array) -> Constant:
    """A constant that holds ``values``."""
    return Constant(name, values.shape, values.dtype, partial(np.asarray, values))


def bound_of(weight: Parameter, channels: int) -> int:
    """The largest integer for which a sum over all taps and channels stays exact."""
    terms = channels * prod(weight.shape[2:]) * (1 if weight.quantized is None else SCALES)
    return max(1, min(64, isqrt(EXACT // terms)))


def random(shape: Sequence[int], bound: int, rng: np.random.Generator) -> Array:
    """Any integers from ``-bound`` to ``bound``, as float32."""
    return rng.integers(-bound, bound + 1, tuple(shape)).astype(np.float32)


def integers(parameter: Parameter, bound: int, rng: np.random.Generator) -> Parameter:
    """``parameter`` with integers in place of its values, and of what makes them."""
    drawn = distinct(parameter.shape, bound, rng)
    if parameter.quantized is not None:
        return _quantized(parameter, parameter.quantized, drawn, rng)
    return replace(parameter, dtype=drawn.dtype, read=lambda: drawn)


def product(
    parameter: Parameter,
    taps: Sequence[int],
    bound: int,
    rng: np.random.Generator,
    alike: bool = False,
) -> Parameter:
    """``parameter``, of one input channel a group, as products of integers, one for each axis.

    Where channels are ``alike`` all have the same product.
    """
    channels = prod(parameter.shape) // prod(taps)
    drawn = distinct((1 if alike else channels, sum(taps)), bound, rng)
    drawn = np.broadcast_to(drawn, (channels, sum(taps)))
    values = np.ones((channels, 1), np.float32)
    for factor in np.split(drawn, np.cumsum(taps)[:-1], axis=1):
        values = (values[:, :, None] * factor[:, None, :]).reshape(channels, -1)
    values = values.reshape(parameter.shape)
    return Parameter(parameter.name, values.shape, values.dtype, lambda: values)


def distinct(shape: Sequence[int], bound: int, rng: np.random.Generator) -> Array:
    """Random values; where they are few no two are equal and none is 0, or a fault could hide."""
    few = np.array([*range(-bound, 0), *range(1, bound + 1)], np.float32)
    count = prod(shape)
    if count <= few.size:
        return rng.permutation(few)[:count].reshape(shape)
    return random(shape, bound, rng)


def _quantized(
    parameter: Parameter, old: Quantized, drawn: Array, rng: np.random.Generator
) -> Parameter:
    """Integers whose differences from the zero point are ``drawn``, in whole scales."""
    if old.zero_point is None:
        # Without one it is 0, from which an unsigned type has no negative differences.
        drawn = np.abs(drawn) if old.dtype.kind == "u" else drawn
        zero_point = None
        shifted = drawn.astype(old.dtype)
    else:
        middle = 128 if old.dtype.kind == "u" else 0
        zero_point = (middle + rng.integers(-40, 41, old.zero_point.shape)).astype(old.dtype)
        shift = old.along(zero_point.astype(np.int64), parameter.shape)
        shifted = (drawn.astype(np.int64) + shift).astype(old.dtype)
    scale = np.asarray(rng.integers(1, SCALES + 1, old.scale.shape), np.float32)
    values = drawn * old.along(scale, parameter.shape)
    quantized = replace(old, read=lambda: shifted, scale=scale, zero_point=zero_point)
    return replace(parameter, dtype=values.dtype, read=lambda: values, quantized=quantized)


def with_fewer_outputs(
    weight: Parameter, bias: Parameter | None, channels: int, transposed: bool
) -> tuple[Parameter, Parameter | None]:
    """Both for the first output ``channels`` of a layer of one group only."""
    fewer = _first(weight, channels, 1 if transposed else 0)
    return fewer, None if bias is None else _first(bias, channels, 0)


def _first(parameter: Parameter, channels: int, axis: int) -> Parameter:
    def cut(values: Array) -> Array:
        return values.take(range(channels), axis) if values.ndim > axis else values

    values, quantized = cut(parameter.read()), parameter.quantized
    if quantized is not None:
        kept = cut(quantized.read())
        scale, zero_point = quantized.scale, quantized.zero_point
        quantized = replace(
            quantized,
            read=lambda: kept,
            scale=scale[:channels] if scale.ndim else scale,
            zero_point=zero_point[:channels]
            if zero_point is not None and scale.ndim
            else zero_point,
        )
    return replace(parameter, shape=values.shape, read=lambda: values, quantized=quantized)
