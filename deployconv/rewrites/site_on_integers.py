"""An upsampling layer on integers: what every trial that has one begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.match import Original, Parameter, UpsampleSite
from deployconv.rewrites.absorb import absorbed_layers
from deployconv.rewrites.base import Rewrite, Trial
from deployconv.rewrites.stand_ins import growth_before_conv, swapped, with_integers_before_conv
from deployconv.rewrites.steps.base import Step
from deployconv.rewrites.trial import SCALES, Draws, build_trial, first_outputs

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A layer with integers for weights, and its old nodes with their stand-ins.

    Attributes:
        site: with stand-ins for the layers before its Conv and those that it has absorbed.
        nodes: the old nodes, in an order in which they run.
        constants: by name, what the old nodes read, weight and bias included.
        parity_only: labels of nodes without an exact stand-in.
        exact: False if sums may be too large to be exact.
    """

    site: UpsampleSite
    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Array]
    parity_only: tuple[str, ...]
    exact: bool

    def trial(self, rewrite: Rewrite, feeds: Mapping[str, Array], batch: int | None = 1) -> Trial:
        """The trial of this layer and of ``rewrite``, which has the same integers for weights.

        ``feeds`` are the inputs by name; ``batch`` is that of the layer, None if dynamic.
        """
        return build_trial(
            rewrite, self.nodes, self.constants, feeds, self.parity_only, self.exact, batch
        )


def draws_for(
    layers: Sequence[SiteOnIntegers], steps: Sequence[Step], rng: np.random.Generator
) -> Draws:
    """The integers for a trial of ``layers`` with ``steps`` after them, see `Draws.fitting`."""
    weights = [step.terms for step in steps if step.terms]
    own = [max(terms) for terms in zip(*(layer.terms for layer in layers), strict=True)]
    return Draws.fitting(
        rng,
        layers[0].site.scope.opset,
        [*own, *(term for terms in weights for term in terms)],
        max(layer.growth for layer in layers) * prod(step.growth for step in steps),
        2 + len(weights),
        max(layer.plain_growth for layer in layers) * prod(step.plain_growth for step in steps),
    )


@dataclass(frozen=True, eq=False)
class SiteOnIntegers:
    """One layer for a trial: how large its values become, and how its integers are drawn.

    Attributes:
        site: the layer.
        original: its nodes as they stand.
        terms: how many products each of its sums has.
        growth: by how much the layers before its Conv and the absorbed ones may enlarge values.
        plain_growth: the same if those that scale values are replaced by Identity.
    """

    site: UpsampleSite
    original: Original
    terms: tuple[int, ...]
    growth: int
    plain_growth: int

    @classmethod
    def of(cls, site: UpsampleSite, original: Original | None = None) -> SiteOnIntegers:
        """Prepare ``site`` for a trial, with its own nodes as they stand if no others are given."""
        original = original or site.original()
        taps = prod(axis.taps for axis in site.axes)
        scales = SCALES if site.weight.quantized is not None else 1
        terms = (site.channels[0] // site.group * taps, scales)
        growth = growth_before_conv(site, original.constants)
        plain_growth = growth_before_conv(site, original.constants, plain=True)
        for layer in absorbed_layers(site):
            growth *= layer.growth
            plain_growth *= layer.plain_growth
        return cls(site, original, terms, growth, plain_growth)

    def draws(self, rng: np.random.Generator, multiplied: int) -> Draws:
        """The integers for a trial of this layer alone, see `Draws.fitting`."""
        opset = self.site.scope.opset
        return Draws.fitting(rng, opset, self.terms, self.growth, multiplied, self.plain_growth)

    def draw(
        self, draws: Draws, channels: int | None = None, weight: Parameter | None = None
    ) -> Drawn:
        """Give the layer random integer weights, for its first output ``channels``.

        The ``weight`` of its base is drawn if none is given.
        """
        base = self.site.base or self.site
        whole = base.channels[1]
        kept = channels or whole
        weight, bias = weight or draws.parameter(base.weight), draws.bias(base.bias)
        if kept < whole:
            weight = first_outputs(weight, kept, 1 if base.transposed else 0)
            bias = None if bias is None else first_outputs(bias, kept, 0)
        known = self.original.constants
        before = with_integers_before_conv(base, known, draws)
        stand_ins, parity_only = before.nodes, before.parity_only
        site = replace(before.site, weight=weight, bias=bias)
        values = weight.read() if base.stored is None else base.stored(weight.read())
        constants = {**known, **before.constants, weight.name: values}
        if bias is not None:
            constants[bias.name] = bias.read()
        for layer in absorbed_layers(self.site):
            drawn = layer.on_integers(draws, (whole, kept))
            site = drawn.into(site)
            constants |= drawn.values
            stand_ins += drawn.nodes
            parity_only += [site.scope.label(node) for node in drawn.parity_only]
        nodes = tuple(swapped(self.original, stand_ins))
        return Drawn(site, nodes, constants, tuple(parity_only), draws.exact)
