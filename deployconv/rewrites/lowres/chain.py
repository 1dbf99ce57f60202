"""The layers behind a site that can run before its shuffle, phase by phase.

    site -> Relu -> ConvTranspose k = s -> Sigmoid        becomes
    Conv -> Relu -> Conv 1x1 -> Sigmoid -> one shuffle

The shuffle is a permutation of positions. A pointwise layer does not see positions; a 1x1
Conv, or a ConvTranspose whose kernel is its stride, works on each pixel alone. Either can be
done to every phase where the phases still are channels. A pixel shuffle behind the site says of
some channels that they are phases, too: nothing is done for it, and the shuffle at the end does
both. What mixes neighbours ends the chain, and so does a tensor that something else reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.view import Scope, View
from deployconv.match import Original, ShuffleSite, Skip, UpsampleSite
from deployconv.match.attributes import AttributeReader
from deployconv.match.pointwise import is_pointwise
from deployconv.match.weights import find_parameters
from deployconv.rewrites.lowres.follow import leads_only_to, only_reader
from deployconv.rewrites.lowres.link import Link, MixLink, PointwiseLink, ShuffleLink


@dataclass(frozen=True, eq=False)
class Chain:
    """A site and the links behind it, in graph order."""

    head: UpsampleSite
    links: tuple[Link, ...]

    @property
    def id(self) -> str:
        """That of the site at its head."""
        return self.head.id

    @property
    def scope(self) -> Scope:
        """The graph that it stands in."""
        return self.head.scope

    @property
    def output(self) -> str:
        """Name of what the last link makes."""
        last = self.links[-1].node if self.links else self.head.nodes[-1]
        return str(last.outputs[0].name)

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The nodes of the site and of the links."""
        return (*self.head.nodes, *(node for link in self.links for node in link.nodes))

    @property
    def mixes(self) -> tuple[MixLink, ...]:
        """The links that mix channels."""
        return tuple(link for link in self.links if isinstance(link, MixLink))

    @property
    def levels(self) -> tuple[MixLink | ShuffleLink, ...]:
        """The links that make pixels of each pixel, or mix its channels."""
        return tuple(link for link in self.links if not isinstance(link, PointwiseLink))

    @property
    def stride(self) -> tuple[int, ...]:
        """Upsampling factor of the whole chain per axis."""
        levels = (self.head.stride, *(level.stride for level in self.levels))
        return tuple(prod(steps) for steps in zip(*levels, strict=True))

    @property
    def channels(self) -> int:
        """Output channels of the whole chain."""
        channels = self.head.channels[1]
        for level in self.levels:
            channels = _behind(level, channels)
        return channels

    def before_last_level(self) -> Chain | None:
        """What stands in front of the last of ``levels``; None where that is the site alone."""
        place = self.links.index(self.levels[-1]) if self.levels else 0
        return Chain(self.head, self.links[:place]) if place else None


def chain_behind(
    site: UpsampleSite,
    view: View,
    mixing: bool,
    shuffles: Collection[ShuffleSite] = (),
    barred: Collection[int] = (),
) -> Chain | None:
    """The longest chain behind ``site``; None where no layer can join.

    With ``mixing`` False it ends before the first mix of channels; of pixel shuffles only those
    in ``shuffles`` join, and no nodes whose id is in ``barred``.
    """
    links: list[Link] = []
    tensor, channels = site.nodes[-1].outputs[0], site.channels[1]
    while True:
        link = _shuffle(tensor, channels, site, shuffles) or _next(tensor, channels, site, view)
        if link is None or (isinstance(link, MixLink) and not mixing):
            break
        if id(link.node) in barred:
            break
        links.append(link)
        tensor, channels = link.node.outputs[0], _behind(link, channels)
    while links and not _run_together(site, links):
        links.pop()
    return Chain(site, tuple(links)) if links else None


def _behind(link: Link, channels: int) -> int:
    """Channels behind ``link`` where there are ``channels`` in front."""
    if isinstance(link, MixLink):
        return link.channels[1]
    return channels // link.phases if isinstance(link, ShuffleLink) else channels


def original_of(site: UpsampleSite, link: ShuffleLink) -> Original | None:
    """The nodes of a shuffle as they stand, with the input of ``site`` at which they run."""
    inputs = (tensor for node in site.nodes for tensor in node.inputs)
    return link.site.behind(next(tensor for tensor in inputs if tensor.name == site.input))


def _run_together(site: UpsampleSite, links: Iterable[Link]) -> bool:
    """True where no two parts are spelled for inputs of different sizes."""
    parts = [original_of(site, link) for link in links if isinstance(link, ShuffleLink)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return False
    tied = [part for part in known if part.sizes is not None]
    if not tied:
        return True
    own = site.original()
    sizes = {part.sizes for part in (*tied, own)} - {None}
    fronts = {part.front for part in (*tied, own)} - {None}
    return len(sizes) == len(fronts) == 1


def _shuffle(
    tensor: gs.Tensor, channels: int, site: UpsampleSite, shuffles: Iterable[ShuffleSite]
) -> ShuffleLink | None:
    for shuffle in shuffles:
        if shuffle.source != tensor.name or shuffle.scope is not site.scope:
            continue
        fits = len(shuffle.stride) == site.rank and channels % prod(shuffle.stride) == 0
        if fits and leads_only_to(tensor, shuffle.layer, site.scope):
            return ShuffleLink(shuffle)
    return None


def _next(tensor: gs.Tensor, channels: int, site: UpsampleSite, view: View) -> Link | None:
    scope = site.scope
    node = only_reader(tensor, scope)
    if node is None:
        return None
    if node.op in ("Conv", "ConvTranspose"):
        return _mix(node, scope, view) if node.inputs[0] is tensor else None
    return _pointwise(node, tensor, channels, site, view)


def _pointwise(
    node: gs.Node, tensor: gs.Tensor, channels: int, site: UpsampleSite, view: View
) -> PointwiseLink | None:
    if not is_pointwise(node, site.scope, view):
        return None
    constants: dict[int, Constant] = {}
    for position, given in enumerate(node.inputs):
        if given is tensor or not given.name:
            continue
        constant = view.constants.fixed(given, site.scope)
        if constant is None:
            return None
        per_channel = _per_channel(constant.shape, site.rank + 2, channels)
        if node.op != "BatchNormalization" and not per_channel:
            return None
        constants[position] = constant
    return PointwiseLink(node, constants)


def _per_channel(shape: tuple[int, ...], rank: int, channels: int) -> bool:
    """One value, or one for each of ``channels``, where the tensor has ``rank`` dimensions."""
    padded = (1,) * (rank - len(shape)) + shape
    alike = len(padded) == rank and all(size == 1 for i, size in enumerate(padded) if i != 1)
    return alike and padded[1] in (1, channels)


def _mix(node: gs.Node, scope: Scope, view: View) -> MixLink | None:
    weight = view.constants.of(node.inputs[1], scope)
    if weight is None:
        return None
    transposed = node.op == "ConvTranspose"
    name = f"{scope.path}/{scope.label(node)}"
    conv = AttributeReader(node, name).conv(weight, grouped_axis=0)
    extent = conv.kernel if transposed else (1,) * conv.rank
    plain = (
        conv.group == 1
        and conv.kernel == conv.strides == extent
        and not any(conv.pads)
        and not any(node.attrs.get("output_padding", ()))
        and not node.attrs.get("output_shape")
        and set(conv.dilations) == {1}
    )
    parameters = find_parameters(node, scope, view, weight)
    if not plain or isinstance(parameters, Skip):
        return None
    return MixLink(
        node=node,
        stride=conv.strides,
        weight=parameters.weight,
        bias=parameters.bias,
        transposed=transposed,
    )
