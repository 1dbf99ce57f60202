"""What a certificate runs for a region: stand-ins that move integers as the layers move reals.

What it shows is that every element meets the elements that it should; what the layers compute of
them is the same node in both (`stand_in`).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.match import Original, UpsampleSite
from deployconv.proof.integers import EXACT, Draws, random
from deployconv.proof.pair import Trial, pair, sizes_of
from deployconv.proof.stand_in import REMAINDERS, on_integers
from deployconv.rewrites.lowering import RegionPlan
from deployconv.rewrites.lowres.last import LastConv
from deployconv.rewrites.lowres.norm import Normalization
from deployconv.rewrites.lowres.product import Product
from deployconv.rewrites.lowres.region import REDUCTIONS, Region

Array = NDArray[Any]


def region_trial(region: Region, plan: RegionPlan, rng: np.random.Generator) -> Trial:
    """A trial for ``region`` on random integers for which every float32 sum is exact."""
    originals = [site.original() for site in region.heads]
    sizes = _sizes(region, plan, originals)
    draws = Draws(_bound(region), rng, {})
    heads = tuple(
        replace(
            site,
            prelude=(),
            weight=draws.instead_of(site.weight),
            bias=None if site.bias is None else draws.instead_of(site.bias),
        )
        for site in region.heads
    )
    image = [axis.output_size(size) for axis, size in zip(region.head.axes, sizes, strict=True)]
    steps = tuple(on_integers(step, draws, image, region.scope.opset) for step in region.steps)
    constants: dict[str, Array] = {}
    nodes: dict[str, NodeProto] = {}
    for site, original in zip(heads, originals, strict=True):
        constants |= original.constants
        nodes |= {proto.output[0]: proto for proto in original.nodes}
        for parameter in (site.weight, site.bias):
            if parameter is not None:
                constants[parameter.name] = parameter.read()
    for step in steps:
        constants |= {known.name: known.read() for known in step.constants.values()}
    protos = [
        *nodes.values(),
        *(OnnxExporter.export_node(node) for step in steps for node in step.nodes),
    ]
    feeds = {
        site.input: random((*(original.front or (2, site.channels[0])), *sizes), draws.bound, rng)
        for site, original in zip(heads, originals, strict=True)
    }
    original = Original(tuple(protos), constants)
    return pair(Region(heads, steps), plan.resized(sizes), original, (), feeds)


def _sizes(region: Region, plan: RegionPlan, originals: list[Original]) -> tuple[int, ...]:
    """Sizes that all sites can run at."""
    found = [
        sizes_of(site, head, original)
        for site, head, original in zip(region.heads, plan.heads, originals, strict=True)
    ]
    tied = [sizes for sizes, original in zip(found, originals, strict=True) if original.sizes]
    if tied:
        return tied[0]
    largest = [max(sizes) for sizes in zip(*found, strict=True)]
    if not plan.last:
        return tuple(largest)
    # Beyond the reach of the last Conv too, which may leave less than it reads.
    wanted = [size + form.span for size, form in zip(largest, plan.last, strict=True)]
    return tuple(
        size if own is None else max(min(own, size), least)
        for own, size, least in zip(region.head.sizes, wanted, largest, strict=True)
    )


def _bound(region: Region) -> int:
    """The largest integer for which no sum, all terms at their largest, leaves the exact ones."""
    factors = [max(_terms(site) for site in region.heads)]
    mixes = 0
    for step in region.steps:
        if isinstance(step, Product):
            factors.append(step.columns)
            mixes += 1
        elif isinstance(step, LastConv):
            factors.append(prod(step.weight.shape[1:]))
            mixes += 1
        elif isinstance(step, Normalization):
            factors.append(REMAINDERS[1])
        elif step.node.op == "Conv":
            factors.append(step.constants[1].shape[1])
            mixes += 1
        elif step.node.op in REDUCTIONS:
            factors.append(max(step.channels for step in region.steps))
        elif len(step.node.inputs) > 1 and step.node.op != "Concat":
            factors.append(len(step.node.inputs))
    return max(1, min(64, int((EXACT / prod(factors)) ** (1 / (2 + mixes)))))


def _terms(site: UpsampleSite) -> int:
    return site.channels[0] // site.group * prod(axis.taps for axis in site.axes)
