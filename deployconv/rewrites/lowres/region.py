"""The layers behind one or more sites that do not care where a pixel stands.

    site a -> LayerNorm over channels -> Conv 1x1 --+
                                                    Add -> y       is computed as
    site b -----------------------------------------+
    Conv a, Conv b -> the same layers, unchanged, on [N, C, phases * H, W] -> one shuffle

The phases of a site are channels of one Conv. With the channel slowest, ``[N, C * P, H, W]`` is
``[N, C, P * H, W]`` by a Reshape: an image whose pixels stand in another order. What computes
each pixel from that pixel alone does not see the order, so the nodes run on it as they are,
weights and all: pointwise layers, 1x1 Convs of any group, reductions over channels, Add and
Concat of tensors in the same order, a product with a matrix (`lowres.product`). Where what is
left has fewer channels, the shuffle has less to move.

A `chain.Chain` keeps the phases as channels instead; its 1x1 Convs are block-diagonal, with
zeros between the phases. That saves a change of layout and costs multiplications by zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import UpsampleSite
from deployconv.match.pointwise import is_pointwise
from deployconv.rewrites.lowres.follow import is_known, reduces_channels
from deployconv.rewrites.lowres.last import LastConv, last_conv_at
from deployconv.rewrites.lowres.norm import Normalization, normalization_at
from deployconv.rewrites.lowres.product import Product, product_at

REDUCTIONS = frozenset(
    [
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    ]
)
_NORMALISERS = frozenset(["LogSoftmax", "Softmax"])
_ACROSS = REDUCTIONS | _NORMALISERS | {"Concat", "Conv"}
"""Operators that see the channels."""


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a region; ``constants`` by the position of the input."""

    node: gs.Node
    constants: Mapping[int, Constant]
    channels: int

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The one node."""
        return (self.node,)

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of its inputs."""
        return tuple(tensor.name for tensor in self.node.inputs)

    @property
    def output(self) -> str:
        """The name of its result."""
        return str(self.node.outputs[0].name)

    @property
    def is_elementwise(self) -> bool:
        """Whether it makes each element of one alone, wherever that stands."""
        alone = sum(bool(tensor.name) for tensor in self.node.inputs) == 1 + len(self.constants)
        known = all(prod(constant.shape) == 1 for constant in self.constants.values())
        return alone and known and self.node.op not in _ACROSS


AnyStep = Step | Product | Normalization | LastConv
"""A LastConv only at the end."""


@dataclass(frozen=True, eq=False)
class Region:
    """Sites and the steps behind them, in graph order; the last step makes what leaves it."""

    heads: tuple[UpsampleSite, ...]
    steps: tuple[AnyStep, ...]

    @property
    def head(self) -> UpsampleSite:
        """The first site, which the region is named after."""
        return self.heads[0]

    @property
    def id(self) -> str:
        """That of its first site."""
        return self.head.id

    @property
    def scope(self) -> Scope:
        """The graph that it stands in."""
        return self.head.scope

    @property
    def output(self) -> str:
        """Name of what leaves the region."""
        return self.steps[-1].output

    @property
    def channels(self) -> int:
        """Channels of what leaves it."""
        return self.steps[-1].channels

    @property
    def last(self) -> LastConv | None:
        """The Conv that it ends in, where that mixes neighbours."""
        step = self.steps[-1]
        return step if isinstance(step, LastConv) else None

    def elementwise_behind(self, head: UpsampleSite) -> tuple[Step, ...]:
        """The steps right behind ``head``, one after the other, that only see single elements."""
        found: list[Step] = []
        while True:
            output = found[-1].output if found else head.output
            readers = [step for step in self.steps if output in step.reads]
            if len(readers) != 1 or not isinstance(readers[0], Step):
                return tuple(found)
            if not readers[0].is_elementwise:
                return tuple(found)
            found.append(readers[0])

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The nodes of the sites and of the steps."""
        sites = (node for head in self.heads for node in head.nodes)
        return (*sites, *(node for step in self.steps for node in step.nodes))


def region_behind(
    site: UpsampleSite,
    view: View,
    peers: Collection[UpsampleSite] = (),
    barred: Collection[int] = (),
    last: bool = False,
    cropped: bool = False,
) -> Region | None:
    """The longest region behind ``site`` that one tensor leaves.

    None where there is none, or where a `Chain` is as good: it must mix channels or join
    tensors.

    Args:
        site: the first site.
        view: what it was found in.
        peers: sites that may join, where their phases lie as those of ``site`` do.
        barred: ids of nodes that may not be taken in.
        last: whether it has to end in a Conv that mixes neighbours; else it has none.
        cropped: whether there are pixels that are cropped behind it: it ends in front of what must
            not see them.
    """
    sources = {peer.output: peer for peer in peers if _alike(site, peer)} | {site.output: site}
    channels = {name: source.channels[1] for name, source in sources.items()}
    steps: list[AnyStep] = []
    first = min(site.scope.index(source.nodes[-1]) for source in sources.values())
    for node in site.scope.nodes[first + 1 :]:
        if any(tensor.name in channels for tensor in node.inputs):
            step = _any_step(node, site, view, channels, last)
            if isinstance(step, Normalization | LastConv) and cropped:
                continue
            if step is not None and not any(id(part) in barred for part in step.nodes):
                steps.append(step)
                if not isinstance(step, LastConv):  # behind it pixels lie otherwise
                    channels[step.output] = step.channels
    for end in reversed(range(len(steps))):
        if last and not isinstance(steps[end], LastConv):
            continue
        region = _ending_in(steps[: end + 1], sources, site.scope)
        if region is not None and region.head is site:
            return region if any(map(_beyond_chains, region.steps)) else None
    return None


def _any_step(
    node: gs.Node, site: UpsampleSite, view: View, channels: Mapping[str, int], last: bool
) -> AnyStep | None:
    """What begins with ``node``, on tensors with so many ``channels``."""
    step = _step(node, site, view, channels) or _product(node, site, view)
    width = channels.get(node.inputs[0].name)
    if step is not None or width is None:
        return step
    ending = last_conv_at(node, site, view, width) if last else None
    return ending or normalization_at(node, site.scope, view, width)


def _alike(site: UpsampleSite, peer: UpsampleSite) -> bool:
    """True where the phases of both lie alike, so that pixels meet as they do in space."""
    same_input = site.input == peer.input or (None not in site.sizes and site.sizes == peer.sizes)
    extras = ([axis.extra for axis in one.axes] for one in (site, peer))
    return (
        peer is not site
        and peer.scope is site.scope
        and peer.stride == site.stride
        and same_input
        and len({tuple(extra) for extra in extras}) == 1
    )


def _ending_in(
    steps: Sequence[AnyStep], sources: Mapping[str, UpsampleSite], scope: Scope
) -> Region | None:
    """What the last of ``steps`` is made of, if nothing else reads any of that."""
    wanted = {steps[-1].output}
    taken: list[AnyStep] = []
    for step in reversed(steps):
        if step.output in wanted:
            taken.insert(0, step)
            wanted.update(step.reads)
    heads = [source for name, source in sources.items() if name in wanted]
    inside = {id(node) for step in taken for node in step.nodes}
    made = [head.nodes[-1].outputs[0] for head in heads]
    made += [step.nodes[-1].outputs[0] for step in taken[:-1]]
    for tensor in made:
        if tensor.name in scope.outputs or any(id(node) not in inside for node in tensor.outputs):
            return None
    heads.sort(key=lambda head: scope.index(head.nodes[-1]))
    return Region(tuple(heads), tuple(taken))


def _beyond_chains(step: AnyStep) -> bool:
    if not isinstance(step, Step):
        return not isinstance(step, Normalization)
    data = [tensor for i, tensor in enumerate(step.node.inputs) if i not in step.constants]
    return len(data) > 1 or step.node.op == "Conv" or step.node.op in REDUCTIONS


def _product(node: gs.Node, site: UpsampleSite, view: View) -> Product | None:
    """A product that begins with ``node``, of an image whose sizes are known."""
    return product_at(node, site.scope, view) if None not in site.sizes else None


def _step(
    node: gs.Node, site: UpsampleSite, view: View, channels: Mapping[str, int]
) -> Step | None:
    """``node`` as a step on tensors with so many ``channels``; None where positions matter."""
    if not is_known(node, site.scope) or len(node.outputs) != 1:
        return None
    constants: dict[int, Constant] = {}
    data: list[int] = []
    for position, tensor in enumerate(node.inputs):
        if tensor.name in channels:
            data.append(channels[tensor.name])
        elif tensor.name:
            constant = view.constants.fixed(tensor, site.scope)
            if constant is None:
                return None
            constants[position] = constant
    made = _channels(node, site, view, data, constants)
    return None if made is None else Step(node, constants, made)


def _channels(
    node: gs.Node,
    site: UpsampleSite,
    view: View,
    data: Sequence[int],
    constants: Mapping[int, Constant],
) -> int | None:
    """Channels of what ``node`` makes; None where it does not work on each pixel alone."""
    rank = site.rank + 2
    if node.op == "Conv":
        return _conv(node, constants)
    if node.op == "Concat":
        along = node.attrs.get("axis") in (1, 1 - rank)
        return sum(data) if along and not constants else None
    if node.op in REDUCTIONS:
        return 1 if reduces_channels(node, constants.get(1), rank) else None
    if node.op in _NORMALISERS:
        # Before opset 13 they flatten what stands behind the axis.
        along = node.attrs.get("axis", -1) in (1, 1 - rank) and site.scope.opset >= 13
        return data[0] if along else None
    if node.op != "Sum" and not is_pointwise(node, site.scope, view):
        return None
    widths = [*data]
    if node.op != "BatchNormalization":
        for constant in constants.values():
            padded = (1,) * (rank - len(constant.shape)) + constant.shape
            if len(padded) != rank or any(size > 1 for i, size in enumerate(padded) if i != 1):
                return None
            widths.append(padded[1])
    return max(widths) if set(widths) <= {1, max(widths)} else None


def _conv(node: gs.Node, constants: Mapping[int, Constant]) -> int | None:
    """Output channels of a Conv of single pixels."""
    weight = constants.get(1)
    if weight is None or set(constants) != set(range(1, len(node.inputs))):
        return None
    plain = (
        prod(weight.shape[2:]) == 1
        and not any(node.attrs.get("pads", ()))
        and set(node.attrs.get("strides", (1,))) == {1}
    )
    return weight.shape[0] if plain else None
