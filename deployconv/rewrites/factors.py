"""Kernels that are products, one factor an axis: ``W[c] = u[c] (x) v[c]``, exactly or not at all.

Times a power of two a kernel is one of whole numbers. Such a matrix is a product if and only if
all its rows are whole multiples of one row without a common divisor, so the factors are found,
or shown not to be there, without any rounding. Bilinear kernels of stride 2, 4, 8 .. and filters
such as [1, 3, 3, 1] / 8 have some; trained kernels, and bilinear ones of stride 3, whose elements
are rounded one by one, have none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_DIGITS = 53
"""Binary digits of a float64, which holds the elements of all other types."""
_WIDEST = 512
"""Powers of two between the elements of a kernel, above which its factors are not looked for."""


def factors(kernel: Array) -> tuple[Array, ...] | None:
    """Split a kernel exactly into one factor per axis; None if that is impossible.

    All but the first have their largest magnitude in [1/2, 1): what they make of an image is
    about as large as the image, in float16 too.

    Args:
        kernel: ``[C, k_1 .. k_n]``, of floats.

    Returns:
        ``[C, k_1] .. [C, k_n]``, of the dtype of ``kernel``.
    """
    whole = _whole(kernel.astype(np.float64))
    if whole is None:
        return None
    rest, exponent = whole
    found: list[Array | None] = []
    for _ in kernel.shape[2:]:
        split = _last_factor(rest)
        if split is None:
            return None
        rest, last = split
        digits = np.frexp(np.abs(last).max(axis=-1).astype(np.float64))[1]
        found.insert(0, _floats(last, -digits, kernel.dtype))
        exponent = exponent + digits
    found.insert(0, _floats(rest, exponent, kernel.dtype))
    exact = tuple(factor for factor in found if factor is not None)
    return exact if len(exact) == len(found) else None


def _whole(values: Array) -> tuple[Array, Array] | None:
    """``values`` as Python integers of any length, times two to the power of the other, ``[C]``."""
    mantissa, exponent = np.frexp(values)
    used = exponent[mantissa != 0]
    lowest = used.min() if used.size else 0
    above = np.where(mantissa != 0, exponent - lowest, 0)
    if not np.isfinite(values).all() or above.max() > _WIDEST:
        return None
    digits = np.ldexp(mantissa, _DIGITS).astype(np.int64).astype(object)
    return digits << above.astype(object), np.full(len(values), lowest - _DIGITS)


def _last_factor(whole: Array) -> tuple[Array, Array] | None:
    """Split off the factor of the last axis: ``[C, .., k]`` into ``[C, ..]`` and ``[C, k]``."""
    channels = np.arange(len(whole))
    rows = whole.reshape(len(whole), -1, whole.shape[-1])
    row = rows[channels, (rows != 0).any(axis=-1).argmax(axis=-1)]
    row = row // np.maximum(np.gcd.reduce(np.abs(row), axis=-1, keepdims=True), 1)
    place = (row != 0).argmax(axis=-1)
    # A channel of zeros is zero times zeros.
    leading = np.where(row[channels, place] == 0, 1, row[channels, place])
    times = rows[channels, :, place] // leading[:, None]
    if (times[..., None] * row[:, None, :] != rows).any():
        return None
    return times.reshape(whole.shape[:-1]), row


def _floats(whole: Array, exponent: Array, dtype: np.dtype[Any]) -> Array | None:
    """Turn integers times a power of two into floats; None if ``dtype`` cannot hold them."""
    with np.errstate(over="ignore"):
        made = np.ldexp(whole.astype(np.float64), exponent[:, None]).astype(dtype)
    back = np.ldexp(made.astype(np.float64), -exponent[:, None])
    return made if (back == whole).all() else None
