"""A layer that stays, with the affine layers after it folded into its weight and bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match import Original, UpsampleSite
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.emit import Emitter, finish_layer, finite
from deployconv.rewrites.site_on_integers import SiteOnIntegers

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class FoldedLayer(OfOneLayer[UpsampleSite]):
    """The node of an upsampling layer with a new weight and bias."""

    @property
    def summary(self) -> Summary:
        return Summary()

    def emit(self, emitter: Emitter) -> None:
        site = self.site
        inputs = [site.layer.inputs[0], emitter.constant("weight", finite(site.weight, site.id))]
        if site.bias is not None:
            inputs.append(emitter.constant("bias", finite(site.bias, site.id)))
        emitter.add(site.layer.op, inputs, **site.layer.attrs)
        finish_layer(emitter, site)

    def at_sizes(self, sizes: Sequence[int]) -> FoldedLayer:
        """The rewrite itself: nothing in it depends on the sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        site, layer = self.site, self.site.layer
        base = replace(site.base or site, pointwise_before=())
        layers = [layer, *(node for one in site.absorbed for node in one.nodes)]
        protos = tuple(site.scope.proto_of(node) for node in layers)
        original = Original(protos, site.original().constants)
        own = SiteOnIntegers.of(replace(site, pointwise_before=(), base=base), original)
        draws = own.draws(rng, 2)
        drawn = own.draw(draws)
        taps = zip(site.geometry.kernel or (), site.geometry.dilation or (), strict=True)
        sizes = [spread * (count - 1) + 4 + at for at, (count, spread) in enumerate(taps)]
        x = draws.image((2, site.channels[0], *sizes))
        return drawn.trial(FoldedLayer(drawn.site), {layer.inputs[0].name: x})


def folded_in_place(site: UpsampleSite) -> FoldedLayer | None:
    """Keep the layer with new weights that include the layers folded into it.

    None if there is nothing to fold, or if its node has no such weight and bias. A weight that
    other nodes read too is not copied for this: the model would grow by a weight to save one pass
    over an image.
    """
    if site.stored is not None or site.layer.op not in ("Conv", "ConvTranspose"):
        return None
    if not site.absorbed or any(layer.crops for layer in site.absorbed):
        return None
    if len(site.layer.inputs[1].outputs) > 1:
        return None
    return FoldedLayer(site)
