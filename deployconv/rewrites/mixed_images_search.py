"""Find layers after a Resize whose weights may come before it (`mixed_images`).

The layers are followed from the Resize to each that is affine at every pixel. Of the places where
they may end, the one is taken that saves most. Nothing else may read what is between. 1x1 Convs
before a Resize are taken in where that saves multiplications.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance
from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import View
from deployconv.rewrites.affine import Affine, images_of, is_affine, multiplications, only_adds
from deployconv.rewrites.mixed_images import Branch, Key, MixedImages
from deployconv.rewrites.neighbours import leads_only_to
from deployconv.rewrites.resized_image import ResizedImage, resized_image
from deployconv.rewrites.steps.pixel_conv import pixel_conv_at
from deployconv.rewrites.steps.pixel_product import pixel_product_at
from deployconv.rewrites.steps.pixelwise import pixelwise_at

_MOST_LAYERS = 64
"""Layers after one Resize that are looked at."""
_IN_PRODUCT = ("Add", "MatMul", "Reshape", "Transpose")
"""Operators of a product of pixels with a matrix."""
_LONGEST_STEP = 6
"""Nodes of such a product."""
_DTYPES = frozenset(("float16", "float32", "float64"))
_MADE = {"nearest": 4, "cubic": 3000}
"""Multiplications that take as long as a Resize of this mode takes for one element, roughly."""
_MADE_LINEAR = 80
"""The same for a linear Resize."""
_MOVED = 4
"""Multiplications that take as long as adding or moving one element, roughly."""


def mixed_images_after(
    head: ResizedImage, scope: Scope, view: View, excluded: Collection[int] = ()
) -> MixedImages | None:
    """Find the layers after ``head`` whose weights can move before it, if that saves work.

    Of several places to end, this is the one that saves most.

    Args:
        head: the first Resize among the layers.
        scope: the graph that it is in.
        view: the model.
        excluded: ids of nodes that may not be taken in.
    """
    search = _Search.of(head, scope, view, excluded)
    found = [mixed for mixed in map(search.ending_in, search.steps) if mixed is not None]
    found.sort(key=lambda mixed: mixed.saved, reverse=True)
    return next((mixed for mixed in found if mixed.is_finite()), None)


@dataclass(frozen=True, eq=False)
class _Images:
    """The graph that the images are in, and their number of spatial axes."""

    scope: Scope
    rank: int


@dataclass(frozen=True, eq=False)
class _Search:
    """The affine layers after one Resize, and the Resizes of the images that they join it with."""

    head: ResizedImage
    images: _Images
    view: View
    excluded: Collection[int]
    resizes: Mapping[str, ResizedImage]
    steps: dict[str, Affine]
    channels: dict[str, int]

    @classmethod
    def of(cls, head: ResizedImage, scope: Scope, view: View, excluded: Collection[int]) -> _Search:
        """All affine steps that read the Resizes of a graph or each other, after ``head``."""
        found = [
            resized_image(node, scope, view)
            for node in scope.nodes
            if node.op in ("Resize", "Upsample") and id(node) not in excluded
        ]
        rank = len(head.before)
        resizes = {one.output: one for one in found if one and len(one.before) == rank}
        made = cls(head, _Images(scope, rank - 2), view, excluded, resizes, {}, {})
        made.channels.update((one.output, one.channels) for one in resizes.values())
        made.channels.update((one.source, one.channels) for one in resizes.values())
        reached = set(resizes)
        for node in scope.nodes[scope.index(head.node) + 1 :]:
            if len(made.steps) >= _MOST_LAYERS:
                break
            resize = resizes.get(node.outputs[0].name) if node.outputs else None
            if resize is not None or not any(tensor.name in reached for tensor in node.inputs):
                continue
            step = made._step(node)
            if step is not None:
                made.steps[step.output] = step
                reached.add(step.output)
        return made

    def _step(self, node: gs.Node) -> Affine | None:
        """``node`` as an affine step, with the images that it reads besides the known ones."""
        scope, view = self.images.scope, self.view
        if id(node) in self.excluded or len(node.outputs) != 1:
            return None
        widths = {}
        for tensor in node.inputs[:1] if node.op == "Conv" else node.inputs:
            width = self.channels.get(tensor.name) or self._width(tensor)
            if tensor.name and width and view.constants.of(tensor, scope) is None:
                widths[tensor.name] = width
        step = (
            pixel_conv_at(node, self.images, view, widths)
            or pixelwise_at(node, self.images, view, widths)
            or pixel_product_at(node, self.images, view, widths)
        )
        if step is None or not is_affine(step) or not widths:
            return None
        if any(id(one) in self.excluded for one in step.nodes):
            return None
        self.channels.update(widths, **{step.output: step.channels})
        return step

    def _step_ending_in(self, last: gs.Node) -> Affine | None:
        """The affine step of a single image that makes the result of ``last``."""
        first = last
        for _ in range(_LONGEST_STEP):
            step = self._step(first)
            if step is not None and step.nodes[-1] is last:
                return step if len(images_of(step)) == 1 else None
            data = [t for t in first.inputs if t.inputs and t.inputs[0].op in _IN_PRODUCT]
            if first.op not in _IN_PRODUCT or not data:
                return None
            first = data[0].inputs[0]
        return None

    def _width(self, tensor: gs.Tensor) -> int | None:
        """The channels of an image of the same rank; None if it is none, or they are not known."""
        instances = self.view.instances(self.images.scope, tensor) if tensor.name else ()
        shapes = [instance[tensor.name] for instance in instances]
        if not shapes or len(shapes[0]) != self.images.rank + 2:
            return None
        widths = {shape[1] for shape in shapes}
        return widths.pop() if len(widths) == 1 else None

    def ending_in(self, end: str) -> MixedImages | None:
        """The sum that the step of this output ends, if it may be written and saves work."""
        layers, read = self._layers_before(end)
        if not self._is_closed(layers, end) or self._first(layers) is not self.head:
            return None
        if any(name in layers for _, name in read):
            return None  # an image is resized again, and read as it is too
        tensors = {t.name: t for layer in layers.values() for t in layer.nodes[0].inputs}
        dtypes = {dtype_name(tensors[name].dtype) for _, name in read}
        if len(dtypes) > 1 or not dtypes <= _DTYPES:
            return None
        width, mixed = self.channels[end], self._mixed(layers, end)
        branches = []
        for key in read:
            source, name = key[0], key[1]
            above = self._above(tensors[name], layers, width) if mixed[key] else []
            layers |= {step.output: step for step in above}
            name = images_of(above[-1])[0] if above else name
            tensors |= {t.name: t for step in above for t in step.nodes[0].inputs}
            branches.append((source, name, mixed[key]))
        outputs = [layer.nodes[-1].outputs[0] for layer in layers.values()]
        images = {name: tensors[name] for _, name, _ in branches}
        instances = self.view.instances(self.images.scope, *outputs, *images.values())
        if not instances or not any(resize and mix for resize, _, mix in branches):
            return None
        if not all(_fit(layer, instance) for layer in layers.values() for instance in instances):
            return None  # a size that was exported as a constant: the model runs at one size only
        made = MixedImages(
            scope=self.images.scope,
            layers=tuple(sorted(layers.values(), key=self._place)),
            branches=tuple(
                Branch(
                    *(name, resize, mix, self.channels[name]),
                    tuple(instance[name] for instance in instances),
                )
                for resize, name, mix in branches
            ),
            channels=self.channels,
            shapes=tuple(instance[end] for instance in instances),
            images=instances[0],
            dtype=str(*dtypes),
            saved=0,
            macs=None,
        )
        made = _measured(made)
        return made if made.saved > 0 else None

    def _place(self, layer: Affine | ResizedImage) -> int:
        return self.images.scope.index(layer.nodes[-1])

    def _first(self, layers: Mapping[str, Affine | ResizedImage]) -> ResizedImage | None:
        """The first interpolating Resize in graph order."""
        found = [
            layer
            for layer in layers.values()
            if isinstance(layer, ResizedImage)
            and layer.mode != "nearest"
            and not layer.changes_nothing
        ]
        return min(found, key=self._place, default=None)

    def _layers_before(self, end: str) -> tuple[dict[str, Affine | ResizedImage], list[Key]]:
        """The layers from the images to ``end``, by output, and the images, each once."""
        layers: dict[str, Affine | ResizedImage] = {}
        read: dict[Key, None] = {}
        waiting = [end]
        while waiting:
            name = waiting.pop()
            if name in layers:
                continue
            if name in self.steps:
                layers[name] = self.steps[name]
                waiting += reversed(images_of(self.steps[name]))
            elif name in self.resizes:
                resize = layers[name] = self.resizes[name]
                read[None if resize.changes_nothing else resize, resize.source] = None
            else:
                read[None, name] = None
        return layers, list(read)

    def _is_closed(self, layers: Mapping[str, Affine | ResizedImage], end: str) -> bool:
        """Whether only these layers read what they make, but for the end."""
        return all(
            name == end or self._is_read_by(layers.values(), layer.nodes[-1].outputs[0])
            for name, layer in layers.items()
        )

    def _is_read_by(self, layers: Iterable[Affine | ResizedImage], tensor: gs.Tensor) -> bool:
        """Whether only these layers read ``tensor``.

        What computes the sizes that a Resize is given is not needed any more if they are constant.
        """
        layers, scope = list(layers), self.images.scope
        inside = {id(node) for layer in layers for node in layer.nodes}
        sized = [one.node for one in layers if isinstance(one, ResizedImage) and one.sizes]
        return tensor.name not in scope.outputs and all(
            id(node) in inside
            or (
                node.op == "Shape"
                and any(leads_only_to(node.outputs[0], last, scope) for last in sized)
            )
            for node in tensor.outputs
        )

    def _mixed(self, layers: Mapping[str, Affine | ResizedImage], end: str) -> dict[Key, bool]:
        """Whether each image is multiplied by weights, or read more than once."""
        reached = {end: False}
        found: dict[Key, bool] = {}
        for layer in sorted(layers.values(), key=self._place, reverse=True):
            mixed = reached[layer.output]
            if isinstance(layer, ResizedImage):
                through = None if layer.changes_nothing else layer
                found[through, layer.source] = mixed or (through, layer.source) in found
                continue
            own = mixed or not only_adds(layer, self.channels)
            for name in images_of(layer):
                again = own or name in reached or (None, name) in found
                reached[name] = again
                if name not in layers:
                    found[None, name] = again
        return found

    def _above(
        self, image: gs.Tensor, layers: Mapping[str, Affine | ResizedImage], width: int
    ) -> list[Affine]:
        """The affine steps that make ``image``, the last one first, that save work if merged.

        ``width`` are the channels that are computed from it.
        """
        steps: list[Affine] = []
        widths = [self.channels[image.name]]
        while len(steps) < _MOST_LAYERS and image.inputs:
            readers = [node for node in image.outputs if node.op != "Shape"]
            if len(readers) != 1 or not self._is_read_by((*layers.values(), *steps), image):
                break
            step = self._step_ending_in(image.inputs[0])
            if step is None:
                break
            steps.append(step)
            image = step.nodes[0].inputs[
                [t.name for t in step.nodes[0].inputs].index(images_of(step)[0])
            ]
            widths.append(self.channels[image.name])
        alone = [*map(multiplications, steps)]
        costs = [width * one + sum(alone[taken:]) for taken, one in enumerate(widths)]
        return steps[: max(range(len(costs)), key=lambda taken: (-costs[taken], taken))]


def _fit(layer: Affine | ResizedImage, shapes: Instance) -> bool:
    """Whether the images that a layer reads have sizes that fit each other."""
    if isinstance(layer, ResizedImage):
        return True
    read = [shapes[name] for name in images_of(layer) if name in shapes]
    stretches = all(node.op != "Concat" for node in layer.nodes)
    return all(
        len(set(sizes) - ({1} if stretches else set())) <= 1
        for axis, sizes in enumerate(zip(*read, strict=True))
        if axis != 1
    )


def _measured(mixed: MixedImages) -> MixedImages:
    """``mixed`` with the multiplications before and after, at the sizes of its first instance.

    If the factors of its Resizes are not known they count as 2.
    """
    known = all(one.fixed or one.scales or one.repeats_one_pixel for one in mixed.resizes)
    shapes = mixed.images if known else _doubled(mixed)
    before = after = 0
    moved = [0, 0]
    for layer in mixed.layers:
        shape = shapes[layer.output]
        if isinstance(layer, ResizedImage):
            moved[0] += 0 if layer.changes_nothing else _per_element(layer) * prod(shape)
        else:
            before += multiplications(layer) * _pixels(shape)
            moved[0] += _MOVED * prod(shape) if not multiplications(layer) else 0
    whole = shapes[mixed.output]
    for branch in mixed.branches:
        after += branch.mixed * branch.channels * mixed.width * _pixels(shapes[branch.source])
        if branch.resize is not None and not branch.resize.repeats_one_pixel:
            moved[1] += _per_element(branch.resize) * prod(whole)
        moved[1] += _MOVED * prod(whole)
    saved = before + moved[0] - after - moved[1]
    return replace(mixed, saved=saved, macs=(before, after) if known else None)


def _doubled(mixed: MixedImages) -> Instance:
    """Shapes of all images if each Resize makes two pixels of one, along each axis."""
    small = {one.source for one in mixed.resizes}
    for layer in reversed(mixed.layers):
        if layer.output in small and not isinstance(layer, ResizedImage):
            small.update(images_of(layer))
    return {
        name: (1, mixed.channels[name], *[1 if name in small else 2] * mixed.rank)
        for name in mixed.images
        if name in mixed.channels
    }


def _per_element(resize: ResizedImage) -> int:
    return _MADE.get(resize.mode, _MADE_LINEAR)


def _pixels(shape: Iterable[int]) -> int:
    batch, _, *sizes = shape
    return batch * prod(sizes)
