"""Absorb the layers after an upsampling layer that become part of its weights or of its crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from numpy.typing import NDArray

from deployconv.match import Original, UpsampleSite
from deployconv.match.site import Absorbed

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.rewrites.trial import Draws

Array = NDArray[Any]


class AbsorbedLayer(Absorbed, Protocol):
    """A layer that an upsampling layer absorbs: how, and its stand-in in a trial."""

    @property
    def growth(self) -> int:
        """By how much its stand-in may enlarge values."""

    @property
    def plain_growth(self) -> int:
        """`growth` in a trial that has Identity in place of layers that scale values."""

    @property
    def values(self) -> Mapping[str, Array]:
        """The constants that its nodes read, by name."""

    @property
    def parity_only(self) -> tuple[gs.Node, ...]:
        """The nodes that its stand-in does not compute."""

    def into(self, site: UpsampleSite) -> UpsampleSite:
        """``site`` with this layer, which reads its output, absorbed."""

    def on_integers(self, draws: Draws, channels: tuple[int, int]) -> AbsorbedLayer:
        """Its stand-in in a trial, which may keep only some of the output channels.

        ``channels`` are the number of all of them and of those that are kept.
        """


def absorbed_layers(site: UpsampleSite) -> tuple[AbsorbedLayer, ...]:
    """The layers that ``site`` has absorbed, in graph order."""
    return cast("tuple[AbsorbedLayer, ...]", site.absorbed)


def with_layer(site: UpsampleSite, layer: AbsorbedLayer) -> UpsampleSite:
    """``site`` with the nodes of the ``layer`` after it; the caller adds what it computes."""
    return replace(
        site,
        nodes=(*site.nodes, *layer.nodes),
        absorbed=(*site.absorbed, layer),
        base=site.base or site,
        output=str(layer.nodes[-1].outputs[0].name),
        original=partial(_original, site, layer),
    )


def _original(site: UpsampleSite, layer: AbsorbedLayer) -> Original:
    """The nodes of ``site`` and of a ``layer`` after it as the model has them."""
    original = site.original()
    protos = tuple(site.scope.proto_of(node) for node in layer.nodes)
    return replace(
        original,
        nodes=(*original.nodes, *protos),
        constants={**original.constants, **layer.values},
    )
