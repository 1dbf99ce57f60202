"""Layers that compute each pixel as weighted sums of channels, and the weights of several together.

    y = W x + b, at each pixel                    Conv 1x1, MatMul, BatchNormalization, Mul, ..
    y = [x_1; x_2]                                Concat
    y = x_1 + x_2                                 Add, Sub, Sum

Such layers one after the other are one such layer. Its weights are found from its end: what is
computed from the result of a layer by ``R`` is computed from its inputs by ``R W``, and ``R b`` is
added. All products are in float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deployconv.rewrites.fold import affine
from deployconv.rewrites.steps.pixel_conv import PixelConv
from deployconv.rewrites.steps.pixel_product import PixelProduct
from deployconv.rewrites.steps.pixelwise import Pixelwise

Matrix = NDArray[np.float64]
Affine = PixelConv | PixelProduct | Pixelwise
"""A step of which `is_affine` is true."""

_SUMS = frozenset(("Add", "Sub", "Sum"))
_SCALES = frozenset(("Add", "BatchNormalization", "Div", "Mul", "Sub"))


def is_affine(step: Affine) -> bool:
    """Whether a step computes weighted sums of channels, with constant weights."""
    if not isinstance(step, Pixelwise):
        return True
    op, images, constants = step.node.op, len(images_of(step)), len(step.constants)
    if images > 1 or op in ("Concat", "Identity"):
        return not constants and (op in _SUMS or op in ("Concat", "Identity"))
    if op == "BatchNormalization":
        return True
    return op in _SCALES and constants == 1 and (op != "Div" or 1 in step.constants)


def images_of(step: Affine) -> list[str]:
    """The names of the images that a step reads, once for each time that it does."""
    if not isinstance(step, Pixelwise):
        return list(step.reads)
    given = enumerate(step.node.inputs)
    return [str(tensor.name) for at, tensor in given if at not in step.constants and tensor.name]


def only_adds(step: Affine, channels: Mapping[str, int]) -> bool:
    """Whether a step returns nothing but the sum of its images and constants."""
    if not isinstance(step, Pixelwise) or step.node.op not in ("Add", "Identity", "Sum"):
        return False
    return all(channels[name] == step.channels for name in images_of(step))


def adds_constant(step: Affine) -> bool:
    """Whether a step may add a constant to each pixel."""
    if not isinstance(step, Pixelwise):
        return step.bias is not None
    return bool(step.constants) and step.node.op not in ("Div", "Mul")


def multiplications(step: Affine) -> int:
    """Multiplications of a 1x1 Conv for one pixel; 0 for layers that mix no channels."""
    return 0 if isinstance(step, Pixelwise) else step.channels * step.channels_read


def pulled_back(
    step: Affine, rows: Matrix, channels: Mapping[str, int]
) -> tuple[list[tuple[str, Matrix]], Matrix]:
    """Turn weights for the result of ``step`` into weights for the images that it reads.

    Args:
        step: an affine step.
        rows: the weights of its result, ``[R, C]``.
        channels: of each image that it reads, by name.

    Returns:
        For each image that it reads the weights, ``[R, channels of the image]``, and what is added
        to the result, ``[R]``.
    """
    images = images_of(step)
    if isinstance(step, PixelConv):
        return [(images[0], _through_conv(step, rows))], _offset(step, rows)
    if isinstance(step, PixelProduct):
        weight = step.weight.read().astype(np.float64)
        return [(images[0], rows @ weight.T)], _offset(step, rows)
    nothing = np.zeros(len(rows))
    if step.node.op == "Concat":
        parts = np.split(rows, np.cumsum([channels[name] for name in images])[:-1], axis=1)
        return list(zip(images, parts, strict=True)), nothing
    signs = [1.0] * len(images)
    if len(images) > 1 or not step.constants:
        if step.node.op == "Sub":
            signs[1:] = [-1.0] * (len(images) - 1)
        made = [
            (name, _narrowed(sign * rows, channels[name]))
            for name, sign in zip(images, signs, strict=True)
        ]
        return made, nothing
    scale, shift = (
        np.broadcast_to(one, step.channels) for one in affine(step.node, step.constants)
    )
    return [(images[0], _narrowed(rows * scale, channels[images[0]]))], rows @ shift


def is_finite(step: Affine) -> bool:
    """Whether all weights of a step are finite."""
    if isinstance(step, Pixelwise) and step.constants:
        return all(np.isfinite(values).all() for values in affine(step.node, step.constants))
    return all(np.isfinite(values).all() for values in step.values.values())


def _through_conv(conv: PixelConv, rows: Matrix) -> Matrix:
    """``rows`` times the weight of a 1x1 Conv of any number of groups."""
    group = int(conv.node.attrs.get("group", 1))
    weight = conv.weight.read().astype(np.float64)
    weight = weight.reshape(group, conv.channels // group, conv.channels_read)
    by_group = rows.reshape(len(rows), group, -1).swapaxes(0, 1)
    made: Matrix = np.matmul(by_group, weight).swapaxes(0, 1).reshape(len(rows), -1)
    return made


def _offset(step: PixelConv | PixelProduct, rows: Matrix) -> Matrix:
    if step.bias is None:
        return np.zeros(len(rows))
    made: Matrix = rows @ step.bias.read().astype(np.float64).ravel()
    return made


def _narrowed(rows: Matrix, channels: int) -> Matrix:
    """The weights of an image of one channel that is read once for each channel."""
    return rows.sum(axis=1, keepdims=True) if channels == 1 else rows
