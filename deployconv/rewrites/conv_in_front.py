"""1x1 Convs that run before the Resizes of their images instead of after them.

    Before:  a -> Resize -> |                        After:  a -> Conv W_a -> Resize -> |
             b -> Resize -> | Concat -> Conv W               b -> Conv W_b -> Resize -> | Add
             c -----------> |                                c -> Conv W_c -----------> |

A Resize works on each channel alike, and its weights add up to 1, so a 1x1 Conv and its bias
commute with it. On the small image the Conv multiplies less, and if it makes fewer channels the
Resize has less to make. All affine layers after the Resizes are one sum of images
(`mixed_images`); their weights are multiplied in float64 and rounded once. An image of one pixel
needs no Resize: the Add repeats it.

A Resize stays, or becomes products with matrices (`resample`), which pays for a cubic one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any, Protocol

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import ResampleSite, Site
from deployconv.results import Macs, Reason
from deployconv.rewrites.affine import Affine
from deployconv.rewrites.base import Oracle, Summary, Trial
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.mixed_images import Branch, MixedImages
from deployconv.rewrites.mixed_images_search import mixed_images_after
from deployconv.rewrites.resample import Resample, plan_products
from deployconv.rewrites.resample_trial import resized_to, weights_oracle
from deployconv.rewrites.resize_on_integers import Bound, DrawnResize, TrialSizes
from deployconv.rewrites.resized_image import ResizedImage, resized_image
from deployconv.rewrites.trial import Draws, build_trial, oracle_model

Array = NDArray[Any]

_ROUNDING = 32
"""Units of the last place that the weights of a Resize may be off 1 in sum."""


class Writer(Protocol):
    """What writes the nodes of a Resize, for an image with any number of channels."""

    def write(self, emitter: Emitter, image: gs.Tensor, channels: int) -> gs.Tensor: ...


@dataclass(frozen=True, eq=False)
class Products:
    """A Resize as products with matrices."""

    resample: Resample

    def write(self, emitter: Emitter, image: gs.Tensor, channels: int) -> gs.Tensor:
        del channels
        return self.resample.write(emitter, image)


@dataclass(frozen=True, eq=False)
class Group:
    """Branches whose images are concatenated along the channels and read by one Conv.

    Attributes:
        members: positions of the branches.
        writer: what resizes the result; None if nothing does.
    """

    members: tuple[int, ...]
    writer: Writer | None


@dataclass(frozen=True, eq=False)
class ConvInFront:
    """A sum of images whose weights come before the Resizes.

    ``groups`` are written in their order. The first one with weights has the bias.
    """

    mixed: MixedImages
    groups: tuple[Group, ...]

    @property
    def scope(self) -> Scope:
        return self.mixed.scope

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return self.mixed.nodes

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.mixed.output,)

    @property
    def operators(self) -> None:
        return None

    @property
    def summary(self) -> Summary:
        """What reports show; multiplications are for one pixel of the first resized image."""
        mixed, macs = self.mixed, None
        if mixed.macs is not None:
            first = next(one for one in mixed.resizes if one.axes and one.mode != "nearest")
            pixels = first.before[0] * prod(first.before[2:])
            macs = Macs(*(round(one / pixels) for one in mixed.macs))
        products = any(isinstance(group.writer, Products) for group in self.groups)
        return Summary("matrix" if products else None, macs=macs)

    def emit(self, emitter: Emitter) -> None:
        weights, bias = self.mixed.weights
        pending: Array | None = bias if self.mixed.has_bias else None
        total: gs.Tensor | None = None
        for group in self.groups:
            made, used = self._conv(emitter, group, weights, pending)
            pending = None if used else pending
            if group.writer is not None:
                made = group.writer.write(emitter, made, self.mixed.width)
            total = made if total is None else emitter.add("Add", [total, made])
        emitter.finish(self.outputs[0])

    def _conv(
        self, emitter: Emitter, group: Group, weights: Sequence[Array], bias: Array | None
    ) -> tuple[gs.Tensor, bool]:
        """The images of a group times their weights, and whether the bias is added."""
        branches = [self.mixed.branches[at] for at in group.members]
        images: list[gs.Tensor] = [gs.Variable(branch.source) for branch in branches]
        if not branches[0].mixed:
            return images[0], False
        image = images[0] if len(images) == 1 else emitter.add("Concat", images, axis=1)
        ones = (1,) * self.mixed.rank
        weight = np.concatenate([weights[at] for at in group.members], axis=1)
        inputs = [image, self._constant(emitter, "weight", weight.reshape(*weight.shape, *ones))]
        if bias is not None:
            inputs.append(self._constant(emitter, "bias", bias))
        return emitter.add("Conv", inputs, kernel_shape=list(ones)), True

    def _constant(self, emitter: Emitter, suffix: str, values: Array) -> gs.Constant:
        return emitter.constant(suffix, values.astype(self.mixed.dtype))

    def at_sizes(self, sizes: Sequence[int]) -> ConvInFront:
        """The rewrite itself: its weights do not depend on sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        """Old and new layers on integers, each Resize as a product with integers.

        The rows of these add up to 1, as do the weights of a Resize, which the oracles show.
        """
        mixed, products = self.mixed, self._products
        sizes = TrialSizes.of(mixed, whole=bool(products))
        drawn = {
            id(one): DrawnResize(
                sizes.matrices(one, products.get(id(one.node)), rng), mixed.rank + 2
            )
            for one in mixed.resizes
        }
        bound = Bound.of(mixed.layers, drawn)
        draws = Draws.fitting(
            rng, self.scope.opset, [bound.terms], bound.growth, bound.drawn, bound.plain_growth
        )
        nodes: list[NodeProto] = []
        constants: dict[str, Array] = {}
        layers: list[Affine | ResizedImage] = []
        oracles, missed = _oracles(mixed, products)
        for number, layer in enumerate(mixed.layers):
            if isinstance(layer, ResizedImage):
                layers.append(layer)
                made, known = drawn[id(layer)].nodes(layer, self.scope.opset, f"trial/{number}")
                nodes += made
                constants |= known
                continue
            _, _, *image = sizes.of_image(mixed.images[layer.output], layer.channels)
            step = layer.on_integers(draws, image)
            layers.append(step)
            constants |= step.values
            nodes += map(OnnxExporter.export_node, step.nodes)
            missed += [self.scope.label(node) for node in step.parity_only]
        groups = tuple(
            replace(group, writer=self._drawn_writer(group, drawn, sizes)) for group in self.groups
        )
        rewrite = ConvInFront(mixed.on(layers, "float32"), groups)
        feeds = {
            one.source: draws.image(sizes.of_image(one.shapes[0], one.channels))
            for one in mixed.branches
        }
        batches = {shape[0] for shape in mixed.shapes}
        trial = build_trial(
            *(rewrite, nodes, constants, feeds, missed, draws.exact),
            batch=1 if len(batches) == 1 else None,
        )
        return replace(trial, oracles=tuple(oracles))

    @property
    def _products(self) -> dict[int, Resample]:
        """The Resizes that become products, by the id of their node."""
        found = [one.writer.resample for one in self.groups if isinstance(one.writer, Products)]
        return {id(resample.site.layer): resample for resample in found}

    def _drawn_writer(
        self, group: Group, drawn: Mapping[int, DrawnResize], sizes: TrialSizes
    ) -> Writer | None:
        """What writes the Resize of a group in the trial."""
        resize = self.mixed.branches[group.members[0]].resize
        if group.writer is None or resize is None:
            return None
        made = drawn[id(resize)]
        if isinstance(group.writer, Products):
            return Products(sizes.resample(group.writer.resample, made.matrices))
        return made


def conv_in_front(site: Site, view: View, excluded: Collection[int] = ()) -> ConvInFront | None:
    """Plan the layers after a Resize with their weights before it, if that saves work.

    Args:
        site: the Resize, which is the first of those among the layers.
        view: the model.
        excluded: ids of nodes that may not be taken in.
    """
    head = resized_image(site.layer, site.scope, view)
    mixed = None if head is None else mixed_images_after(head, site.scope, view, excluded)
    return None if mixed is None else _in_front(mixed, {})


def with_products(
    rewrite: ConvInFront, sites: Iterable[ResampleSite], every: bool = False
) -> ConvInFront | None:
    """The rewrite with matrix products in place of Resizes; None if there is none to replace.

    If some Resizes are slow, only these become products, else all that can. Nearest ones, those of
    one pixel and those of unknown sizes stay. With ``every`` none that interpolates may stay.
    """
    known = {id(site.layer): site for site in sites}
    products: dict[int, Resample] = {}
    for resize in rewrite.mixed.resizes:
        site = known.get(id(resize.node))
        if resize.mode == "nearest" or resize.changes_nothing:
            continue
        if resize.repeats_one_pixel and not every:
            continue
        planned = plan_products(site) if site is not None else None
        if planned is not None and not isinstance(planned, Reason):
            products[id(resize.node)] = planned
        elif every:
            return None
    if not every:
        slow = {node: planned for node, planned in products.items() if _is_slow(planned.site)}
        products = slow or products
    return _in_front(rewrite.mixed, products) if products else None


def _is_slow(site: ResampleSite) -> bool:
    """Whether runtimes are slow at this Resize: any but a linear one by whole factors.

    That can stay in the layout that the Convs around it have.
    """
    plain = site.how.mode == "linear" and not site.how.antialias
    return not plain or any(axis.scale != int(axis.scale) for axis in site.axes)


def _in_front(mixed: MixedImages, products: Mapping[int, Resample]) -> ConvInFront:
    """Write the weights of ``mixed`` before its Resizes.

    ``products`` has, by the id of its node, each Resize that becomes products with matrices.
    """
    branches = mixed.branches
    covering = any(_covers(branch, mixed) for branch in branches)

    def place(at: int) -> tuple[bool, int, tuple[Any, ...]]:
        """Small images first; those that one Conv reads are neighbours."""
        branch = branches[at]
        own = branch.resize is None and branch.mixed
        sizes = tuple((shape[0], *shape[2:]) for shape in branch.shapes)
        return not branch.mixed, prod(sizes[0]), (*sizes, -1 if own else at)

    groups = []
    for _, members in groupby(sorted(range(len(branches)), key=place), place):
        found = tuple(members)
        resize = branches[found[0]].resize
        writer: Writer | None = resize
        if resize is not None and id(resize.node) in products:
            writer = Products(products[id(resize.node)])
        if resize is not None and resize.repeats_one_pixel and covering:
            writer = None
        groups.append(Group(found, writer))
    return ConvInFront(mixed, tuple(groups))


def _covers(branch: Branch, mixed: MixedImages) -> bool:
    """Whether a branch alone makes an image of the size of the result."""
    resize = branch.resize
    if resize is None:
        pairs = zip(branch.shapes, mixed.shapes, strict=True)
        return all((a[0], *a[2:]) == (b[0], *b[2:]) for a, b in pairs)
    return not resize.repeats_one_pixel and resize.after[2:] == mixed.shapes[0][2:]


def _oracles(
    mixed: MixedImages, products: Mapping[int, Resample]
) -> tuple[list[Oracle], list[str]]:
    """What shows that the weights of each Resize add up to 1, and Resizes of which nothing does.

    For products the weights themselves are compared with those of the runtime.
    """
    found: list[Oracle] = []
    missing: list[str] = []
    for resize in mixed.resizes:
        if resize.mode == "nearest" or resize.changes_nothing:
            continue
        resample = products.get(id(resize.node))
        own: list[Oracle | None] = [_of_ones(resize, mixed.scope)]
        if resample is not None:
            site = resample.site
            own = [weights_oracle(site, one, resample.matrix(one), 0.0) for one in site.axes]
        if not all(own):
            missing.append(mixed.scope.label(resize.node))
        found += filter(None, own)
    return found, missing


def _of_ones(resize: ResizedImage, scope: Scope) -> Oracle:
    """The Resize of an image of ones, which must make ones."""
    node = scope.copy_of(resize.node)
    before, after = ([1, 1, *shape[2:]] for shape in (resize.before, resize.after))
    scales = [resize.scales.get(axis, 1.0) for axis in range(len(before))]
    constants = resized_to(node, None if resize.scales else after, scales)
    ones = np.ones(before, np.float32)
    model = oracle_model(node, constants, scope.opset, ones)
    atol = _ROUNDING * float(np.finfo(np.float32).eps)
    return Oracle(model, ones, np.ones(after), atol, scope.label(resize.node))
