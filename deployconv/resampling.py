"""Resampling of one axis as a matrix: ``y = M x``.

The operator Resize computes each output as a sum of a few inputs near a position ``p(o)`` of the
input (ONNX operators, Resize-19). So along one axis it is a banded matrix ``M [outputs, inputs]``,
and along several axes it is one such product per axis. For a whole factor ``s`` the distances
between the outputs and the inputs repeat after ``s`` outputs: then ``M`` is a polyphase filter.

    p(o)                     asymmetric            o / s
                             half_pixel            (o + 1/2) / s - 1/2
                             pytorch_half_pixel    the same, and 0 for a single output
                             tf_half_pixel_for_nn  (o + 1/2) / s, and o for a scale of 1
                             align_corners         o (i - 1) / (o_n - 1), and 0 for a single output
                             half_pixel_symmetric  half_pixel about the middle of the input

    linear                   w(d) = 1 - |d|                          for |d| < 1
    cubic (Keys 1981)        w(d) = (a + 2)|d|^3 - (a + 3)|d|^2 + 1  for |d| <= 1
                             w(d) = a|d|^3 - 5a|d|^2 + 8a|d| - 4a    for 1 < |d| < 2
    nearest                  w(d) = 1 for the one input that the position is rounded to

Beyond the border the edge pixel is read; with ``exclude_outside`` nothing is, and the weights that
are left are divided by their sum. With ``antialias`` an axis that shrinks takes a kernel that is
``1 / s`` times as wide.

Where runtimes disagree, this is what onnxruntime computes and PyTorch means. Both compute the
position and the weights in float32, and so does this: `Interpolation.weight` says what is left of
weights that should be 0. If an image changes its size along one axis, onnxruntime runs its cubic
kernel along the other one too. The matrix of that one is not the identity if something is left.
A nearest Resize takes a position as a tie if it is less than a millionth from the middle of two
pixels (`_TIE`); this was seen in onnxruntime 1.32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployconv.polyphase import Axis

Array = NDArray[Any]

Coordinates = Literal[
    "half_pixel",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
]
NearestMode = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]

_TIE = 1e-6
"""How far from the middle of two pixels a float32 position may be that counts as the middle."""


@dataclass(frozen=True)
class Interpolation:
    """How a Resize makes a pixel of those around it, as its attributes of the same names say.

    ``nearest_mode`` is that of a nearest one, which copies one of them.

    ``channels_last`` is True for a cubic one of the axes 1 and 2 of four, without ``antialias``.
    onnxruntime runs it by the kernel that it has for ``antialias``, which rounds in another way and
    copies an axis that keeps its size. It is not widened.
    """

    mode: Literal["linear", "cubic", "nearest"]
    coordinates: Coordinates = "half_pixel"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    channels_last: bool = False
    nearest_mode: NearestMode = "round_prefer_floor"

    @property
    def support(self) -> int:
        """How far from the position an input may lie that is read."""
        return 2 if self.mode == "cubic" else 1

    @property
    def filters(self) -> bool:
        """Whether onnxruntime runs it by the kernel that it has for ``antialias``."""
        return self.antialias or self.channels_last

    def reads(self, distance: Fraction) -> bool:
        """Whether a filter needs a tap for inputs that are ``distance`` after the position."""
        return self.mode != "nearest" or self.exact_weight(distance) != 0

    def exact_weight(self, distance: Fraction) -> float:
        """The weight of an input ``distance`` after the position, rounded once."""
        if self.mode == "nearest":
            return float(_rounded(-distance, self.nearest_mode) == 0)
        d, a = abs(distance), Fraction(float(np.float32(self.cubic_coeff_a)))
        if d >= self.support:
            return 0.0
        if self.mode == "linear":
            return float(1 - d)
        if d <= 1:
            return float(((a + 2) * d - (a + 3)) * d * d + 1)
        return float((((d - 5) * d + 8) * d - 4) * a)

    def weight(self, distance: float) -> float:
        """The weight of an input ``distance`` after the position, as onnxruntime computes it.

        It evaluates the two halves of the cubic in float32. At whole distances most coefficients
        leave a remainder: for -0.6 the weight at 2 is -4.8e-7 in place of 0, at 1 it is -1.2e-7.
        The kernel without ``antialias`` has a half for each of the four inputs that it reads. So at
        a distance of 1 the second half is that of the input before, and the first that of the one
        after. Of -0.5, -0.75 and -1 nothing is left.
        """
        d, a = np.abs(np.float32(distance)), np.float32(self.cubic_coeff_a)
        one, two, three, four, five, eight = map(np.float32, (1, 2, 3, 4, 5, 8))
        if self.mode == "linear":
            return max(0.0, float(one - d))
        if d < 1 or (d == 1 and distance > 0 and not self.filters):
            return float(((a + two) * d - (a + three)) * d * d + one)
        if self.filters:
            return float((((d - five) * d + eight) * d - four) * a) if d < two else 0.0
        return float(((a * d - five * a) * d + eight * a) * d - four * a)

    def rounding(self, inputs: int, exact_positions: bool) -> float:
        """How far the float32 weights of one output may be from the exact ones, added up.

        Each operation rounds by half an epsilon of its result, and later products enlarge that.
        ``A`` is the size of the coefficient. In the outer half ``5a`` and the two steps after it
        leave 11 A halves, which ``d`` doubles twice: 68.4 A at most. In the inner half it is
        7 A + 20. An output has two weights of each. The position is wrong by at most 1.5 epsilons
        of ``inputs``, and a weight has a slope of at most A + 1.5, of a linear one 1. The weights
        add up to 1, so all together change by less than two slopes in either direction.

        Args:
            inputs: size of the axis.
            exact_positions: whether float32 holds the positions, as it does for powers of two.
        """
        eps, a = float(np.finfo(np.float32).eps), abs(self.cubic_coeff_a)
        slope = 1.0 if self.mode == "linear" else a + 1.5
        kernel = 0.0 if self.mode == "linear" else 68.4 * a + 7 * a + 20
        return eps * (kernel + (0 if exact_positions else 4 * slope * inputs))


def resampling_matrix(inputs: int, outputs: int, scale: float, how: Interpolation) -> Array:
    """The matrix of a Resize along one axis.

    Args:
        inputs: size of the axis before.
        outputs: size of the axis after.
        scale: as given; ``outputs / inputs`` where sizes are given instead.
        how: the interpolation.

    Returns:
        float64 ``[outputs, inputs]``; the rows add up to 1.
    """
    if how.filters and inputs == outputs:
        return np.eye(inputs)  # onnxruntime copies such an axis, whatever the coordinates
    made = np.zeros((outputs, inputs))
    # Of a scale of 1, onnxruntime takes the position itself, whatever the coordinates.
    position = _positions(inputs, outputs, scale, how.coordinates) if scale != 1 else float
    row = _copied if how.mode == "nearest" else _filtered if how.filters else _interpolated
    for index in range(outputs):
        row(made[index], position(index), scale, how)
    return made


@dataclass(frozen=True)
class Filter:
    """The filter that a Resize by a whole factor applies at every output.

    Attributes:
        axis: which input a tap reads if the size grows. If it shrinks by ``n``, output ``o`` reads
            the inputs from ``n * o + axis.origin`` on, and ``axis.stride`` is 1.
        taps: the weights, float64 ``[axis.taps]``.
        shrinks_by: ``n``; 1 if the size grows.
    """

    axis: Axis
    taps: Array
    shrinks_by: int = 1

    def matrix(self, inputs: int, outputs: int) -> Array:
        """The matrix ``[outputs, inputs]`` that the Resize is at this size."""
        made = self.sums(inputs, outputs)
        return made if self.axis.edge else made / made.sum(axis=1, keepdims=True)

    def sums(self, inputs: int, outputs: int) -> Array:
        """The matrix ``[outputs, inputs]`` that the filter is at this size."""
        made = np.zeros((outputs, inputs))
        first = np.arange(outputs) * self.shrinks_by + self.axis.origin
        for tap, weight in enumerate(self.taps):
            read, rest = np.divmod(first + tap, self.axis.stride)
            inside = (rest == 0) & ((read >= 0) & (read < inputs) | self.axis.edge)
            at = np.flatnonzero(inside)
            np.add.at(made, (at, read[at].clip(0, inputs - 1)), weight)
        return made


def whole_factor(scale: float) -> int | None:
    """The whole factor by which a size grows, or minus that by which it shrinks; None if none."""
    if scale >= 1:
        return round(scale) if scale == round(scale) else None
    by = round(1 / scale)
    return -by if np.float32(1 / by) == np.float32(scale) else None


def resampling_filter(factor: int, how: Interpolation) -> Filter | None:
    """The filter of a Resize by a whole factor, as `whole_factor` returns it.

    It is the same at every output and every size, and exact: positions are fractions here. Where
    the weights are powers of two, it is the matrix of `resampling_matrix` to the bit.

    Returns None for ``align_corners``, whose positions depend on the size.
    """
    if how.coordinates == "align_corners":
        return None
    half = Fraction(0) if how.coordinates == "asymmetric" else Fraction(1, 2)
    back = Fraction(0) if how.coordinates == "tf_half_pixel_for_nn" else half
    edge, shrinks_by = not how.exclude_outside, max(-factor, 1)
    step = Fraction(shrinks_by) if factor < 0 else Fraction(1, factor)
    first = half * step - back  # the position of output 0
    widening = shrinks_by if how.antialias else 1
    reach = how.support * widening
    if factor < 0:
        # A tap for each input. The last output has as many after its first as the image has there,
        # so that nothing of the image is left over.
        begin = min(floor(first - reach) + 1, 0)
        while begin < 0 and not how.exact_weight((begin - first) / widening):
            begin += 1
        end = max(ceil(first + reach), shrinks_by)
        distances = [(at - first) / widening for at in range(begin, end)]
        axis = Axis(1, len(distances), 1, begin, 0, edge=edge)
    else:
        # A tap for each distance: output ``factor * m + q`` reads input ``m + j`` through that of
        # numerator ``factor * j - q``, which is ``j + q * step`` inputs away from it.
        begin = floor((-reach + first) * factor) + 1
        end = ceil((reach + first) * factor)
        read = [at for at in range(begin, end) if how.reads(at * step - first)]
        distances = [at * step - first for at in read]
        axis = Axis(factor, len(distances), 1, read[0], 0, edge=edge)
    taps = np.array([how.exact_weight(distance) for distance in distances])
    return Filter(axis, taps / taps.sum() * max(factor, 1), shrinks_by)


def _positions(
    inputs: int, outputs: int, scale: float, coordinates: Coordinates
) -> Callable[[int], float]:
    """The position in the input of each output, in float32 as runtimes compute it."""
    half, s = np.float32(0.5), np.float32(scale)

    def asymmetric(o: int) -> float:
        return float(np.float32(o) / s)

    def half_pixel(o: int) -> float:
        return float((np.float32(o) + half) / s - half)

    def half_pixel_for_nn(o: int) -> float:
        return float((np.float32(o) + half) / s)

    def align_corners(o: int) -> float:
        if outputs == 1:
            return 0.0
        return float(np.float32(o) * np.float32(inputs - 1) / np.float32(outputs - 1))

    def symmetric(o: int) -> float:
        adjustment = np.float32(outputs) / (s * np.float32(inputs))
        offset = np.float32(inputs) / np.float32(2) * (np.float32(1) - adjustment)
        return float(np.float32(float(offset) + (o + 0.5) / float(s) - 0.5))

    if coordinates == "asymmetric":
        return asymmetric
    if coordinates == "align_corners":
        return align_corners
    if coordinates == "half_pixel_symmetric":
        return symmetric
    if coordinates == "tf_half_pixel_for_nn":
        return half_pixel_for_nn
    if coordinates == "pytorch_half_pixel" and outputs == 1:
        return lambda o: 0.0
    return half_pixel


def _rounded(position: float | Fraction, mode: NearestMode) -> int:
    """The pixel that a position is rounded to."""
    half = Fraction(1, 2)
    if mode == "floor":
        return floor(position)
    if mode == "ceil":
        return ceil(position)
    return ceil(position - half) if mode == "round_prefer_floor" else floor(position + half)


def _copied(row: Array, position: float, scale: float, how: Interpolation) -> None:
    """Write the weights of one output that copies an input into a row of zeros."""
    del scale
    middle = floor(position) + 0.5
    if how.nearest_mode.startswith("round") and abs(position - middle) < _TIE:
        position = middle
    row[min(max(_rounded(position, how.nearest_mode), 0), len(row) - 1)] = 1


def _interpolated(row: Array, position: float, scale: float, how: Interpolation) -> None:
    """Write the weights of one output into a row of zeros."""
    del scale
    last = len(row) - 1
    if how.mode == "linear":
        position = min(max(position, 0.0), float(last))
    below = floor(position)
    begin, beyond = below - how.support + 1, np.float32(position) - np.float32(below)
    total = 0.0
    for at in range(begin, begin + 2 * how.support):
        weight = how.weight(float(np.float32(at - below) - beyond))
        if how.exclude_outside and not 0 <= at <= last:
            continue
        row[min(max(at, 0), last)] += weight
        total += weight
    if how.exclude_outside:
        row /= total


def _filtered(row: Array, position: float, scale: float, how: Interpolation) -> None:
    """Write the weights of one output; ``antialias`` widens the kernel if the axis shrinks."""
    last = len(row) - 1
    widening = max(np.float32(1), np.float32(1) / np.float32(scale if how.antialias else 1))
    center = np.float32(0.5) + np.float32(position)
    reach, half = np.float32(how.support) * widening, np.float32(0.5)
    total = np.float32(0)
    for at in range(floor(center - reach + half), floor(center + reach + half)):
        weight = how.weight(float((np.float32(at) - center + half) * (np.float32(1) / widening)))
        if how.exclude_outside and not 0 <= at <= last:
            continue
        row[min(max(at, 0), last)] += weight
        total += np.float32(weight)
    row *= np.float32(1) / total
