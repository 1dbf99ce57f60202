"""What a certificate runs: the old and the new nodes of one site, with integers to run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.match import Original, ShuffleSite, UpsampleSite
from deployconv.match.site import ConvInFront
from deployconv.proof.integers import (
    EXACT,
    SCALES,
    Draws,
    bound_of,
    constant_of,
    integers,
    product,
    random,
    with_fewer_outputs,
)
from deployconv.proof.pair import AFFORDABLE, Trial, pair, sizes_of
from deployconv.proof.region_trial import region_trial
from deployconv.rewrites.lowering import (
    AnyPlan,
    ChainPlan,
    MatrixPlan,
    Plan,
    RegionPlan,
    SeparablePlan,
    ShufflePlan,
    Subject,
)
from deployconv.rewrites.lowres.chain import Chain, original_of
from deployconv.rewrites.lowres.link import Link, MixLink, PointwiseLink, ShuffleLink
from deployconv.rewrites.lowres.region import Region

Array = NDArray[Any]

_EXACT_ON_INTEGERS = frozenset({"Abs", "Add", "Max", "Min", "Neg", "Relu", "Sub"})


def trial_of(site: Subject, plan: AnyPlan, rng: np.random.Generator) -> Trial:
    """A trial for ``site`` on random integers for which every float32 sum is exact."""
    if isinstance(site, Chain) and isinstance(plan, ChainPlan):
        return _chain(site, plan, rng)
    if isinstance(site, Region) and isinstance(plan, RegionPlan):
        return region_trial(site, plan, rng)
    if isinstance(site, UpsampleSite) and isinstance(plan, Plan):
        return _upsampling(site, plan, rng)
    if isinstance(site, UpsampleSite) and isinstance(plan, SeparablePlan | MatrixPlan):
        return _separable(site, plan, rng)
    if isinstance(site, ShuffleSite) and isinstance(plan, ShufflePlan):
        return _shuffle(site, plan, rng)
    raise TypeError(f"{type(plan).__name__} is no plan for {type(site).__name__}")


def _arrangement(site: UpsampleSite, plan: Plan) -> tuple[UpsampleSite, Plan]:
    """The same with floats for integers that get new scales: what is exact is where they go."""
    if not plan.requantized:
        return site, plan
    floats = replace(site.weight, quantized=None)
    return replace(site, weight=floats), replace(plan, requantized=False)


def _upsampling(site: UpsampleSite, plan: Plan, rng: np.random.Generator) -> Trial:
    site, plan = _arrangement(site, plan)
    original = site.original()
    sizes = sizes_of(site, plan, original)
    work = prod(sizes) * max(plan.macs.before, plan.macs.after)
    bound = bound_of(site.weight, site.channels[0] // site.group)
    # Pointwise layers that change place are certified as identity, in old and new alike.
    site = replace(
        site,
        prelude=(),
        weight=integers(site.weight, bound, rng),
        bias=None if site.bias is None else integers(site.bias, bound, rng),
    )
    if work > AFFORDABLE and site.group == 1:
        channels = max(1, site.channels[1] * AFFORDABLE // work)
        # All output channels are made alike: the first ones do.
        weight, bias = with_fewer_outputs(site.weight, site.bias, channels, site.transposed)
        site = replace(site, weight=weight, bias=bias)
        plan = replace(plan, layout=replace(plan.layout, channels=channels))
    x = random((*(original.front or (2, site.channels[0])), *sizes), bound, rng)
    return pair(site, plan.resized(sizes), original, (site.weight, site.bias), {site.input: x})


def _separable(
    site: UpsampleSite, plan: SeparablePlan | MatrixPlan, rng: np.random.Generator
) -> Trial:
    """Kernels that are products of integers: their factors are found as those of the real ones."""
    original = site.original()
    sizes = sizes_of(site, plan, original)
    # A sum has the product of one integer an axis and one of the image for every tap.
    taps = [axis.taps for axis in site.axes]
    bound = max(1, min(64, int((EXACT / prod(taps)) ** (1 / (site.rank + 1)))))
    site = replace(
        site,
        prelude=(),
        weight=product(site.weight, taps, bound, rng, alike=isinstance(plan, MatrixPlan)),
        bias=None if site.bias is None else integers(site.bias, bound, rng),
    )
    x = random((*(original.front or (2, site.channels[0])), *sizes), bound, rng)
    return pair(site, plan.resized(sizes), original, (site.weight, site.bias), {site.input: x})


def _shuffle(site: ShuffleSite, plan: ShufflePlan, rng: np.random.Generator) -> Trial:
    rank = len(site.stride)
    if not plan.reorders or site.conv is None:
        original = site.original()
        sizes = original.sizes or (5, 6, 7)[:rank]
        x = random((*(original.front or (2, site.channels or 1)), *sizes), 1 << 20, rng)
        return pair(site, plan.resized(sizes), original, (), {site.source: x})
    conv = site.conv
    original = conv.original()
    bound = bound_of(conv.weight, conv.weight.shape[1])
    weight = integers(conv.weight, bound, rng)
    bias = None if conv.bias is None else integers(conv.bias, bound, rng)
    site = replace(site, conv=replace(conv, weight=weight, bias=bias))
    reach = zip(conv.kernel, conv.dilation, range(rank), strict=True)
    sizes = original.sizes or tuple(d * (k - 1) + 4 + i for k, d, i in reach)
    channels = weight.shape[1] * conv.group
    x = random((*(original.front or (2, channels)), *sizes), bound, rng)
    known = tuple(size for size in site.sizes if size is not None)
    left = known if original.sizes is not None else _left_by(conv, sizes)
    return pair(site, plan.resized(left), original, (weight, bias), {conv.node.inputs[0].name: x})


def _left_by(conv: ConvInFront, sizes: Sequence[int]) -> tuple[int, ...]:
    """The spatial sizes of what ``conv`` makes of an input of ``sizes``."""
    rank = len(sizes)
    strides = conv.node.attrs.get("strides", [1] * rank)
    pads = conv.node.attrs.get("pads", [0] * 2 * rank)
    reach = [d * (k - 1) for k, d in zip(conv.kernel, conv.dilation, strict=True)]
    if conv.node.attrs.get("auto_pad", "NOTSET").startswith("SAME"):
        return tuple(-(-size // step) for size, step in zip(sizes, strides, strict=True))
    return tuple(
        (size + pads[axis] + pads[rank + axis] - reach[axis] - 1) // strides[axis] + 1
        for axis, size in enumerate(sizes)
    )


def _chain(chain: Chain, plan: ChainPlan, rng: np.random.Generator) -> Trial:
    site, head_plan = _arrangement(chain.head, plan.head)
    plan = replace(plan, head=head_plan)
    original = _together(chain)
    sizes = sizes_of(site, plan.head, original)
    terms = [site.channels[0] // site.group * prod(axis.taps for axis in site.axes)]
    terms += [mix.channels[0] for mix in chain.mixes]
    weights = [site.weight, *(mix.weight for mix in chain.mixes)]
    scales = SCALES ** sum(weight.quantized is not None for weight in weights)
    bound = max(1, min(64, int((EXACT / prod(terms) / scales) ** (1 / (len(terms) + 1)))))
    draws = Draws(bound, rng, {})
    head = replace(
        site,
        prelude=(),
        weight=draws.instead_of(site.weight),
        bias=None if site.bias is None else draws.instead_of(site.bias),
    )
    # What does not keep integers is certified as identity, in old and new alike.
    kept = [link for link in chain.links if _keeps_integers(link)]
    chain = Chain(head, tuple(_with_integers(link, draws) for link in kept))
    given, nodes = dict(original.constants), list(original.nodes)
    for parameter in (head.weight, head.bias):
        if parameter is not None:
            given[parameter.name] = parameter.read()
    current = site.nodes[-1].outputs[0].name
    for link in chain.links:
        copies, constants = _as_it_stands(chain, link, current)
        given.update(constants)
        nodes += copies
        current = link.node.outputs[0].name
    x = random((*(original.front or (2, site.channels[0])), *sizes), bound, rng)
    old = replace(original, nodes=tuple(nodes), constants=given)
    return pair(chain, plan.resized(sizes), old, (), {site.input: x})


def _together(chain: Chain) -> Original:
    """The head's nodes, at the sizes that all shuffles behind it are spelled for."""
    original = chain.head.original()
    for link in chain.links:
        spelled = original_of(chain.head, link) if isinstance(link, ShuffleLink) else None
        if spelled is not None and spelled.sizes is not None:
            original = replace(original, sizes=spelled.sizes, front=spelled.front)
    return original


def _as_it_stands(
    chain: Chain, link: Link, source: str
) -> tuple[list[NodeProto], Mapping[str, Array]]:
    """The nodes of ``link`` behind ``source``, and what else they read."""
    if isinstance(link, ShuffleLink):
        original = original_of(chain.head, link)
        assert original is not None
        nodes, constants, read = original.nodes, original.constants, {link.site.source}
    else:
        nodes = (chain.scope.proto.node[chain.scope.index(link.node)],)
        constants = _constants_of(link)
        read = {name for name in nodes[0].input if name and name not in constants}
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [source if name in read else name for name in node.input]
        copies.append(copy)
    return copies, constants


def _keeps_integers(link: Link) -> bool:
    return not isinstance(link, PointwiseLink) or link.node.op in _EXACT_ON_INTEGERS


def _with_integers(link: Link, draws: Draws) -> Link:
    if isinstance(link, ShuffleLink):
        return link
    if isinstance(link, MixLink):
        bias = None if link.bias is None else draws.instead_of(link.bias)
        return replace(link, weight=draws.instead_of(link.weight), bias=bias)
    drawn = {
        position: constant_of(known.name, draws.of(known.name, known.shape))
        for position, known in link.constants.items()
    }
    return replace(link, constants=drawn)


def _constants_of(link: PointwiseLink | MixLink) -> dict[str, Array]:
    if isinstance(link, PointwiseLink):
        return {known.name: known.read() for known in link.constants.values()}
    parameters = (link.weight, link.bias)
    return {parameter.name: parameter.read() for parameter in parameters if parameter}
