"""The layers behind a site that can run before its shuffle, phase by phase.

    site -> Relu -> ConvTranspose k = s -> Sigmoid        becomes
    Conv -> Relu -> Conv 1x1 -> Sigmoid -> one shuffle

The shuffle is a permutation of positions. A pointwise layer does not see positions; a 1x1
Conv, or a ConvTranspose whose kernel is its stride, works on each pixel alone. Either can be
done to every phase where the phases still are channels. What mixes neighbours ends the chain,
and so does a tensor that something else reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.lowres.follow import only_reader
from deployconv.model.constants import Constant
from deployconv.model.view import Scope, View
from deployconv.sites import Parameter, Skip, UpsampleSite
from deployconv.sites.attributes import AttributeReader
from deployconv.sites.parameters import find_parameters
from deployconv.sites.pointwise import is_pointwise

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PointwiseLink:
    """A layer that treats all positions alike; ``constants`` by the position of the input."""

    node: gs.Node
    constants: Mapping[int, Constant]


@dataclass(frozen=True, eq=False)
class MixLink:
    """A layer that works on each pixel alone, and may make a block of ``stride`` of it.

    ``transposed`` tells the layout of the weight, as in `UpsampleSite`.
    """

    node: gs.Node
    stride: tuple[int, ...]
    weight: Parameter
    bias: Parameter | None
    transposed: bool

    @property
    def channels(self) -> tuple[int, int]:
        """(C_in, C_out)."""
        first, second = self.weight.shape[:2]
        return (first, second) if self.transposed else (second, first)

    @property
    def phases(self) -> int:
        """Pixels made of each."""
        return prod(self.stride)

    def kernel(self, values: Array) -> Array:
        """``values`` of the weight as ``[C_out, s_1 .. s_n, C_in]``."""
        if self.transposed:
            return np.moveaxis(values, 0, -1)
        return values.reshape(*values.shape[:2], *self.stride).swapaxes(1, -1)


Link = PointwiseLink | MixLink


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
        return (*self.head.nodes, *(link.node for link in self.links))

    @property
    def mixes(self) -> tuple[MixLink, ...]:
        """The links that mix channels."""
        return tuple(link for link in self.links if isinstance(link, MixLink))

    @property
    def stride(self) -> tuple[int, ...]:
        """Upsampling factor of the whole chain per axis."""
        levels = (self.head.stride, *(mix.stride for mix in self.mixes))
        return tuple(prod(steps) for steps in zip(*levels, strict=True))

    @property
    def channels(self) -> int:
        """Output channels of the whole chain."""
        return self.mixes[-1].channels[1] if self.mixes else self.head.channels[1]


def chain_behind(
    site: UpsampleSite, view: View, mixing: bool, barred: Collection[int] = ()
) -> Chain | None:
    """The longest chain behind ``site``; None where no layer can join.

    With ``mixing`` False it ends before the first mix of channels; nodes whose id is in
    ``barred`` do not join.
    """
    links: list[Link] = []
    tensor = site.nodes[-1].outputs[0]
    while True:
        link = _next(tensor, site, view)
        if link is None or (isinstance(link, MixLink) and not mixing):
            break
        if id(link.node) in barred:
            break
        links.append(link)
        tensor = link.node.outputs[0]
    return Chain(site, tuple(links)) if links else None


def _next(tensor: gs.Tensor, site: UpsampleSite, view: View) -> Link | None:
    scope = site.scope
    node = only_reader(tensor, scope)
    if node is None:
        return None
    if node.op in ("Conv", "ConvTranspose"):
        return _mix(node, scope, view) if node.inputs[0] is tensor else None
    return _pointwise(node, tensor, site, view)


def _pointwise(
    node: gs.Node, tensor: gs.Tensor, site: UpsampleSite, view: View
) -> PointwiseLink | None:
    if not is_pointwise(node, site.scope, view):
        return None
    constants: dict[int, Constant] = {}
    for position, given in enumerate(node.inputs):
        if given is tensor or not given.name:
            continue
        constant = view.constants.of(given, site.scope)
        if constant is None or (constant.overridable and not view.constants.frozen):
            return None
        if node.op != "BatchNormalization" and not _per_channel(constant.shape, site.rank + 2):
            return None
        constants[position] = constant
    return PointwiseLink(node, constants)


def _per_channel(shape: tuple[int, ...], rank: int) -> bool:
    """One value, or one per channel, where the tensor has ``rank`` dimensions."""
    padded = (1,) * (rank - len(shape)) + shape
    return len(padded) == rank and all(size == 1 for i, size in enumerate(padded) if i != 1)


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
