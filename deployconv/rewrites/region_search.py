"""Find the longest region after an upsampling layer (`region`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import UpsampleSite
from deployconv.polyphase import Polyphase, smallest_kernel
from deployconv.results import Reason
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.region import Region, sizes_after
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.rewrites.steps.base import RegionStep
from deployconv.rewrites.steps.last_conv import LastConv, last_conv_at
from deployconv.rewrites.steps.normalization import normalization_at
from deployconv.rewrites.steps.pixel_conv import pixel_conv_at
from deployconv.rewrites.steps.pixelwise import pixelwise_at
from deployconv.rewrites.steps.product import product_at


def region_after(
    head: PolyphaseConv,
    view: View,
    peers: Collection[UpsampleSite] = (),
    excluded: Collection[int] = (),
    ends_in_conv: bool = False,
) -> Region | None:
    """Find the longest region after ``head`` that one tensor leaves, if it can be written.

    None as well if a `Chain` is as good: it must mix channels in another way or join images.

    Args:
        head: the first layer.
        view: the model that it was found in.
        peers: other layers that may join, if their phases lie as those of ``head`` do.
        excluded: ids of nodes that may not be taken in.
        ends_in_conv: whether it must end in a Conv that mixes neighbours; else it has none.
    """
    site = head.site
    if site.tail:
        return None
    sources = {peer.output: peer for peer in peers if _alike(site, peer)} | {site.output: site}
    steps = _steps_after(head, view, sources, excluded, ends_in_conv)
    for end in reversed(range(len(steps))):
        if ends_in_conv and not steps[end].ends_region:
            continue
        found = _ending_in(steps[: end + 1], sources, site.scope)
        if found is None or found[0][0] is not site:
            continue
        heads, taken = found
        return _planned(head, heads, taken) if any(s.beyond_chains for s in taken) else None
    return None


def _steps_after(
    head: PolyphaseConv,
    view: View,
    sources: Mapping[str, UpsampleSite],
    excluded: Collection[int],
    ends_in_conv: bool,
) -> list[RegionStep]:
    """All steps that read the ``sources`` or each other, in graph order."""
    site, cropped = head.site, head.layout.cropped
    channels = {name: source.channels[1] for name, source in sources.items()}
    steps: list[RegionStep] = []
    first = min(site.scope.index(source.nodes[-1]) for source in sources.values())
    for node in site.scope.nodes[first + 1 :]:
        if any(tensor.name in channels for tensor in node.inputs):
            step = _step_at(node, site, view, channels, ends_in_conv)
            if step is None or (step.needs_whole_image and cropped):
                continue
            if not any(id(part) in excluded for part in step.nodes):
                steps.append(step)
                if not step.ends_region:
                    channels[step.output] = step.channels
    return steps


def _step_at(
    node: gs.Node,
    site: UpsampleSite,
    view: View,
    channels: Mapping[str, int],
    ends_in_conv: bool,
) -> RegionStep | None:
    """The step that begins with ``node``, on images with so many ``channels``."""
    step: RegionStep | None = pixel_conv_at(node, site, view, channels) or pixelwise_at(
        node, site, view, channels
    )
    if step is None and None not in site.sizes:
        step = product_at(node, site.scope, view)
    width = channels.get(node.inputs[0].name)
    if step is not None or width is None:
        return step
    ending = last_conv_at(node, site, view, width) if ends_in_conv else None
    return ending or normalization_at(node, site.scope, view, width)


def _alike(site: UpsampleSite, peer: UpsampleSite) -> bool:
    """Whether two layers put the same phases at the same pixels."""
    inputs = [(one.input, one.input_axes) for one in (site, peer)]
    same_input = inputs[0] == inputs[1] or (None not in site.sizes and site.sizes == peer.sizes)
    extras = ([axis.extra for axis in one.axes] for one in (site, peer))
    return (
        peer is not site
        and not peer.tail
        and peer.scope is site.scope
        and peer.stride == site.stride
        and same_input
        and len({tuple(extra) for extra in extras}) == 1
    )


def _ending_in(
    steps: Sequence[RegionStep], sources: Mapping[str, UpsampleSite], scope: Scope
) -> tuple[list[UpsampleSite], tuple[RegionStep, ...]] | None:
    """The layers and steps that the last step needs, if no other node reads their results."""
    wanted = {steps[-1].output}
    taken: list[RegionStep] = []
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
    return heads, tuple(taken)


def _planned(
    head: PolyphaseConv, sites: Sequence[UpsampleSite], steps: tuple[RegionStep, ...]
) -> Region | None:
    """The region of these layers and steps, ``head`` as planned; None if it cannot be written."""
    if head.shuffle is None or head.form == "conv" or head.channel_split:
        return None
    shuffle = SHUFFLES[head.shuffle]
    if not shuffle.phases_in_order:  # the channel must change slowest
        return None
    if any(site.weight.quantized is not None for site in sites):
        return None  # integer layers end at their QuantizeLinear, see `chain`
    heads = [replace(head, volume=False)]
    for site in sites[1:]:
        other = plan_conv(site, head.form, head.shuffle)
        if isinstance(other, Reason) or not _same_image(other, head):
            return None
        heads.append(replace(other, volume=False))
    last = steps[-1]
    layout = replace(head.layout, channels=last.channels)
    last_axes: tuple[Polyphase, ...] = ()
    if isinstance(last, LastConv):
        last_axes = tuple(map(smallest_kernel, last.axes))
        sizes = sizes_after(layout.sizes, last_axes)
        crop = tuple(form.crop for form in last_axes)
        layout = replace(layout, sizes=sizes, crop=crop, group=1)
    if not shuffle.takes(layout) or not head.layout.reshapes:
        return None
    return Region(tuple(heads), steps, head.shuffle, layout, head.summary, last_axes)


def _same_image(one: PolyphaseConv, other: PolyphaseConv) -> bool:
    """True if the Convs make images of one size, cropped alike."""
    return (one.layout.sizes, one.layout.crop, [form.rows for form in one.axes]) == (
        other.layout.sizes,
        other.layout.crop,
        [form.rows for form in other.axes],
    )
