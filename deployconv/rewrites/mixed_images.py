"""A sum of images, some of them resized, that several layers compute together.

    a -> Conv 1x1 -> Resize -> |
    b -------------> Resize -> | Concat -> Conv 1x1 -> BatchNormalization -> y
    c -----------------------> |

All layers together are ``y = Resize(W_a a) + Resize(W_b b) + W_c c + bias``, as each computes every
pixel as weighted sums of channels. The images ``a``, ``b``, ``c`` are the branches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance
from deployconv.rewrites.affine import (
    Affine,
    Matrix,
    adds_constant,
    is_finite,
    pulled_back,
)
from deployconv.rewrites.resized_image import ResizedImage

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Branch:
    """One image of the sum.

    Attributes:
        source: name of the tensor.
        resize: the Resize that its products go through; None if they are not resized.
        mixed: False if it is added as it is, without weights.
        channels: of the image.
        shapes: of the image, one for each instance of the model's sizes.
    """

    source: str
    resize: ResizedImage | None
    mixed: bool
    channels: int
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class MixedImages:
    """Layers that together compute one sum of images, some of them resized.

    Attributes:
        scope: the graph that they are in.
        layers: the affine steps and the Resizes, in graph order; the last one makes the output.
        branches: the images of the sum.
        channels: of every image in it, by name.
        shapes: of the result, one for each instance of the model's sizes.
        images: the shape of every image in the first of these instances.
        dtype: element type of all images.
        saved: multiplications that are saved if the weights come before the Resizes; elements that
            are moved are counted as multiplications too.
        macs: multiplications of the 1x1 Convs before and after, at the sizes of the first instance;
            None if they depend on sizes that are not known.
    """

    scope: Scope
    layers: tuple[Affine | ResizedImage, ...]
    branches: tuple[Branch, ...]
    channels: Mapping[str, int]
    shapes: tuple[tuple[int, ...], ...]
    images: Instance
    dtype: str
    saved: int
    macs: tuple[int, int] | None

    @property
    def output(self) -> str:
        """Name of the result."""
        return self.layers[-1].output

    @property
    def width(self) -> int:
        """Channels of the result."""
        return self.channels[self.output]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.shapes[0]) - 2

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """All nodes, in graph order."""
        nodes = (node for layer in self.layers for node in layer.nodes)
        return tuple(sorted(nodes, key=self.scope.index))

    @property
    def resizes(self) -> tuple[ResizedImage, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, ResizedImage))

    @cached_property
    def weights(self) -> tuple[tuple[Matrix, ...], Matrix]:
        """The weights of each branch, float64 ``[C_out, C]``, and the bias, ``[C_out]``."""
        pulled: dict[Key, Matrix] = {(None, self.output): np.eye(self.width)}
        bias = np.zeros(self.width)
        for layer in reversed(self.layers):
            for key in [key for key in pulled if key[1] == layer.output]:
                rows = pulled.pop(key)
                found, offset = [(layer.output, rows)], np.zeros(self.width)
                if isinstance(layer, ResizedImage):
                    found = [(layer.source, rows)]
                else:
                    found, offset = pulled_back(layer, rows, self.channels)
                through = _through(layer, key[0])
                for name, part in found:
                    at = through, name
                    pulled[at] = pulled[at] + part if at in pulled else part
                bias = bias + offset
        return tuple(pulled[one.resize, one.source] for one in self.branches), bias

    @property
    def has_bias(self) -> bool:
        """Whether a layer may add a constant."""
        return any(
            not isinstance(layer, ResizedImage) and adds_constant(layer) for layer in self.layers
        )

    def is_finite(self) -> bool:
        """Whether all weights are finite, also in the element type of the images."""
        steps = [layer for layer in self.layers if not isinstance(layer, ResizedImage)]
        if not all(map(is_finite, steps)):
            return False
        parts, bias = self.weights
        with np.errstate(over="ignore"):
            return all(np.isfinite(one.astype(self.dtype)).all() for one in (*parts, bias))

    def on(self, layers: Sequence[Affine | ResizedImage], dtype: str) -> MixedImages:
        """The same sum with other weights."""
        return replace(self, layers=tuple(layers), dtype=dtype)


Key = tuple[ResizedImage | None, str]
"""An image: the Resize that its products go through, or None, and its name."""


def _through(layer: Affine | ResizedImage, resize: ResizedImage | None) -> ResizedImage | None:
    """The Resize that the inputs of ``layer`` go through, if its result goes through ``resize``."""
    resizes = isinstance(layer, ResizedImage) and not layer.changes_nothing
    return layer if isinstance(layer, ResizedImage) and resizes else resize
