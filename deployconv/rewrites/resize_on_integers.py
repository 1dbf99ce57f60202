"""A Resize in a trial: products with integers whose rows add up to 1, as its weights do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import ceil, prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.match.resample_site import ResampledAxis
from deployconv.resampling import resampling_matrix
from deployconv.rewrites.affine import Affine, images_of
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.mixed_images import MixedImages
from deployconv.rewrites.resample import Resample
from deployconv.rewrites.resized_image import ResizedImage
from deployconv.rewrites.steps.pixelwise import Pixelwise
from deployconv.rewrites.trial import AFFORDABLE

Array = NDArray[Any]

_SMALLEST, _SMALLER = 5, 3
"""Sizes of the result of a trial and of smaller images, along the first axis."""


@dataclass(frozen=True, eq=False)
class DrawnResize:
    """Products with a matrix of integers ``[outputs, inputs]`` along each axis that changes.

    ``rank`` is the number of dimensions of the image.
    """

    matrices: Mapping[int, Array]
    rank: int

    @property
    def growth(self) -> int:
        """By how much it may enlarge values."""
        return prod(int(np.abs(matrix).sum(axis=1).max()) for matrix in self.matrices.values())

    def write(self, emitter: Emitter, image: gs.Tensor, channels: int) -> gs.Tensor:
        """The product along each axis, which is moved to the end for it."""
        del channels
        if not self.matrices:
            return emitter.add("Identity", [image])
        for axis, matrix in self.matrices.items():
            order = [*range(axis), *range(axis + 1, self.rank), axis]
            moved = emitter.add("Transpose", [image], perm=order)
            integers = emitter.constant("integers", matrix.T.astype(np.float32))
            made = emitter.add("MatMul", [moved, integers])
            image = emitter.add("Transpose", [made], perm=np.argsort(order).tolist())
        return image

    def nodes(
        self, resize: ResizedImage, opset: int, stem: str
    ) -> tuple[list[NodeProto], dict[str, Array]]:
        """The nodes in place of ``resize``, and their constants by name."""
        number = count()
        emitter = Emitter(opset, lambda suffix: f"{stem}/{suffix}_{next(number)}")
        self.write(emitter, gs.Variable(resize.source), resize.channels)
        nodes = emitter.finish(resize.output)
        constants = {
            tensor.name: tensor.values
            for node in nodes
            for tensor in node.inputs
            if isinstance(tensor, gs.Constant)
        }
        return [OnnxExporter.export_node(node) for node in nodes], constants


@dataclass(frozen=True)
class TrialSizes:
    """The sizes of the images in a trial.

    Attributes:
        real: spatial sizes of the result in the model.
        tried: the same in the trial.
        whole: whether other sizes keep their ratio to those of the result; else they are small.
        batch: of the result in the model.
    """

    real: tuple[int, ...]
    tried: tuple[int, ...]
    whole: bool
    batch: int

    @classmethod
    def of(cls, mixed: MixedImages, whole: bool) -> TrialSizes:
        """Choose small sizes; if ``whole``, those of the model as far as they are affordable."""
        batch, _, *real = mixed.shapes[0]
        work = 1 if mixed.macs is None else max(1, mixed.macs[0] // batch)
        part = min(1.0, (AFFORDABLE / work) ** (1 / len(real)))
        tried = (ceil(part * size) if whole else _SMALLEST + axis for axis, size in enumerate(real))
        return cls(tuple(real), tuple(tried), whole, batch)

    def of_image(self, shape: Sequence[int], channels: int) -> tuple[int, ...]:
        """The shape in the trial of an image that has this one in the model."""
        sizes = (self._size(axis, size) for axis, size in enumerate(shape[2:]))
        return 1 if shape[0] != self.batch else 2, channels, *sizes

    def matrices(
        self, resize: ResizedImage, resample: Resample | None, rng: np.random.Generator
    ) -> dict[int, Array]:
        """The integers for each axis that ``resize`` changes, or ``resample`` if there is one.

        If it becomes the products of ``resample``, they stand where those have weights.
        """
        found = {}
        products = [axis.position for axis in resample.site.axes] if resample else resize.axes
        for axis in products:
            sizes = (shape[axis] for shape in (resize.before, resize.after))
            inputs, outputs = (self._size(axis - 2, size) for size in sizes)
            read = _two_of_each(outputs, inputs, rng)
            if resample is not None:
                read = self._band(resample, axis, inputs, outputs)
            found[axis] = _adding_up_to_one(read, rng)
        return found

    def resample(self, resample: Resample, matrices: Mapping[int, Array]) -> Resample:
        """``resample`` with these matrices in place of its own, one for each axis."""
        site = resample.site
        axes = tuple(
            replace(axis, inputs=found.shape[1], outputs=found.shape[0])
            for axis in site.axes
            for found in [matrices[axis.position]]
        )
        shape = self.of_image([size or 1 for size in site.shape], 1)
        shape = tuple(
            matrices[at].shape[1] if at in matrices else size for at, size in enumerate(shape)
        )
        drawn = {axis: matrices[axis.position] for axis in axes}
        return Resample(replace(site, axes=axes, shape=shape, dtype="float32"), drawn.__getitem__)

    def _size(self, axis: int, real: int) -> int:
        """The size in the trial of what has ``real`` elements along a spatial axis."""
        if real == self.real[axis]:
            return self.tried[axis]
        if real == 1 or not self.whole:
            return 1 if real == 1 else _SMALLER + axis
        return max(1, round(real * self.tried[axis] / self.real[axis]))

    def _band(self, resample: Resample, position: int, inputs: int, outputs: int) -> Array:
        """Which inputs each output reads, True or False."""
        (axis,) = (one for one in resample.site.axes if one.position == position)
        if (inputs, outputs) == axis.sizes:
            return np.asarray(resample.matrix(axis) != 0)
        small = ResampledAxis(position, inputs, outputs, outputs / inputs)
        band = resampling_matrix(inputs, outputs, small.scale, resample.site.how)
        return np.asarray(band != 0)


@dataclass(frozen=True)
class Bound:
    """How far values may grow from the images of a sum to one of its layers.

    Attributes:
        terms: products that are added up, over all 1x1 Convs on the way.
        growth: by how much the other layers enlarge values.
        plain_growth: the same if layers that scale values are replaced by Identity.
        drawn: how many drawn integers are multiplied with each other.
    """

    terms: int = 1
    growth: int = 1
    plain_growth: int = 1
    drawn: int = 1

    @classmethod
    def of(cls, layers: Sequence[Affine | ResizedImage], drawn: Mapping[int, DrawnResize]) -> Bound:
        """Return the bound of the last of ``layers``; ``drawn`` has the Resizes by their ids."""
        known: dict[str, Bound] = {}
        found = cls()
        for layer in layers:
            read = [layer.source] if isinstance(layer, ResizedImage) else images_of(layer)
            images = [known.get(name, cls()) for name in read]
            found = cls(*(max(values) for values in zip(*map(cls._values, images), strict=True)))
            if isinstance(layer, ResizedImage):
                more = cls(drawn[id(layer)].growth, drawn=0)
            elif not isinstance(layer, Pixelwise):
                more = cls(prod(layer.terms), drawn=1)
            else:
                more = cls(1, layer.growth, layer.plain_growth, 0)
            found = known[layer.output] = cls(
                found.terms * more.terms,
                found.growth * more.growth,
                found.plain_growth * more.plain_growth,
                found.drawn + more.drawn,
            )
        return found

    def _values(self) -> tuple[int, int, int, int]:
        return self.terms, self.growth, self.plain_growth, self.drawn


def _two_of_each(outputs: int, inputs: int, rng: np.random.Generator) -> Array:
    """For each output one or two inputs that it reads, True or False."""
    read = np.zeros((outputs, inputs), bool)
    for row in read:
        row[rng.permutation(inputs)[:2]] = True
    return read


def _adding_up_to_one(read: Array, rng: np.random.Generator) -> Array:
    """Integers where ``read`` is True, none of them 0, that add up to 1 in each row."""
    made = np.zeros(read.shape)
    for row, places in zip(made, read, strict=True):
        signs = np.resize([1.0, -1.0], np.count_nonzero(places))
        signs[:1] += 1 - signs.sum()
        row[places] = rng.permutation(signs)
    return made
