"""A Resize and a pixel shuffle whose results are added, with one shuffle for both.

    features -> Conv -> shuffle --+             features -> Conv --------+
                                  Add -> y  =                            Add -> shuffle -> y
    image -> Resize --------------+             image -> Pad -> Conv ----+

Networks for super-resolution add details to an enlarged image. If the Resize enlarges by whole
factors it is a Conv of its phases (`resample_phases`) and the same shuffle. A shuffle moves each
element to another place and changes none, so it can come after the Add: there is one shuffle
instead of two, no image of the full size besides the result, and runtimes fuse the Add with a Conv.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.match import ImageAxes, ResampleSite, ShuffleSite, Site
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.base import Summary, Trial
from deployconv.rewrites.channel_layout import in_order
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.neighbours import only_reader
from deployconv.rewrites.pixel_shuffle import shuffle_layout
from deployconv.rewrites.resample_phases import ResamplePhases, plan_phases
from deployconv.rewrites.resample_trial import on_integers, with_oracles
from deployconv.rewrites.shuffles import SHUFFLES, channel_order, write_shuffle
from deployconv.rewrites.trial import build_trial

_FEW_CHANNELS = 4
"""Up to so many channels one dense Conv reads all. Runtimes are slow at groups with one input
channel and several outputs."""
_LARGEST_DRAW = 1 << 20
"""Bound of the shuffled integers of a trial; their sums with those of the Resize stay exact."""


@dataclass(frozen=True, eq=False)
class SharedShuffle:
    """A Resize and a pixel shuffle that are added, as one shuffle.

    Attributes:
        phases: the Resize as one Conv of its phases.
        moved: the pixel shuffle. Its channels stay in their order.
        added: the Add of both results.
        shuffle: the shuffle after it.
        layout: the tensor that this shuffle moves.
    """

    phases: ResamplePhases
    moved: ShuffleSite
    added: gs.Node
    shuffle: ShuffleName
    layout: Layout

    @property
    def scope(self) -> Scope:
        return self.moved.scope

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        both = (*self.phases.site.nodes, *self.moved.nodes, self.added)
        return tuple(sorted(both, key=self.scope.index))

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.added.outputs[0].name,)

    @property
    def operators(self) -> None:
        return None

    @property
    def summary(self) -> Summary:
        return Summary("polyphase", self.shuffle, self.phases.summary.conv_kernel)

    def emit(self, emitter: Emitter) -> None:
        layout = in_order(self.layout.channels, self.layout.stride)
        order = channel_order(self.shuffle, layout, self.layout.rank)
        enlarged = self.phases.write_phases(emitter, order)
        total = emitter.add("Add", [gs.Variable(self.moved.source), enlarged])
        write_shuffle(emitter, total, self.shuffle, self.layout)
        emitter.finish(self.outputs[0])

    def at_sizes(self, sizes: Sequence[int]) -> SharedShuffle:
        """The same rewrite for an image of other spatial sizes; what is dynamic stays so."""
        return replace(self, layout=self.layout.at_sizes(sizes))

    def trial(self, rng: np.random.Generator) -> Trial:
        """The certificate: both layers and the Add on integers, and the weights of the Resize."""
        original, site = self.moved.original(), self.phases.site
        image = self.phases.trial_shape()
        image[1] = self.layout.channels
        if original.sizes is not None:
            image[2:] = original.sizes
        if original.batch_and_channels is not None:
            image[0] = original.batch_and_channels[0]
        phases, matrices = self.phases.on_integers(rng, image)
        nodes, constants, x = on_integers(phases.site, image, matrices, rng)
        shape = image[0], image[1] * prod(self.layout.stride), *image[2:]
        shuffled = rng.integers(-_LARGEST_DRAW, _LARGEST_DRAW + 1, shape).astype(np.float32)
        trial = build_trial(
            replace(self, phases=phases).at_sizes(image[2:]),
            [*nodes, *original.nodes, self.scope.proto_of(self.added)],
            {**constants, **original.constants},
            {site.source: x, self.moved.source: shuffled},
            batch=self.layout.batch,
        )
        return with_oracles(trial, site, self.phases.weights)


def shared_shuffles(
    site: Site, others: Iterable[Site], names: Sequence[ShuffleName]
) -> Iterator[SharedShuffle]:
    """The rewrites of a Resize and a pixel shuffle that are added, one for each shuffle that fits.

    Args:
        site: one of the two.
        others: what the other one may be.
        names: the shuffles to write.
    """
    for other in others:
        resize, moved = (site, other) if isinstance(site, ResampleSite) else (other, site)
        if not isinstance(resize, ResampleSite) or not isinstance(moved, ShuffleSite):
            continue
        added = _added(resize, moved)
        if added is not None:
            planned = (_planned(resize, moved, added, name) for name in names)
            yield from (one for one in planned if one is not None)


def _added(resize: ResampleSite, moved: ShuffleSite) -> gs.Node | None:
    """The Add of both results, if nothing else reads them; None if there is none."""
    scope, found = moved.scope, resize.layer.outputs[0]
    node = only_reader(found, scope) if resize.scope is scope else None
    if node is None or node.op != "Add" or resize.output != found.name:
        return None
    shuffled = moved.layer.outputs[0]
    alone = moved.output == shuffled.name and only_reader(shuffled, scope) is node
    return node if alone else None


def _planned(
    resize: ResampleSite, moved: ShuffleSite, added: gs.Node, name: ShuffleName
) -> SharedShuffle | None:
    """Plan both layers with the shuffle ``name``; None if they do not fit each other or it."""
    layout, row = shuffle_layout(moved), SHUFFLES[name]
    if layout is None or not moved.is_depth_to_space or layout.dtype != resize.dtype:
        return None
    if row.channel_order != moved.order or row.steps or row.joins:
        return None
    dense = layout.channels <= _FEW_CHANNELS
    if row.channel_order == "DCR" and not dense:
        return None  # a Conv with groups does not make this order
    phases = plan_phases(resize, shuffle=name, dense=dense)
    if isinstance(phases, Reason) or phases.image != ImageAxes() or resize.how.exclude_outside:
        return None
    steps = phases.steps(phases.channels)
    conv = steps[0].conv
    if len(steps) > 1 or not isinstance(conv, PolyphaseConv) or conv.form != "pad":
        return None
    total = _sum_of(conv.layout, layout)
    if total is None or not row.takes(total):
        return None
    return SharedShuffle(phases, moved, added, name, total)


def _sum_of(one: Layout, other: Layout) -> Layout | None:
    """What the shuffle moves after the Add of two images; None if they do not fit each other.

    The Add may repeat an image of batch 1, or one pixel along an axis that the shuffle leaves as it
    is. So a size is known only if both images state it.
    """
    same = (one.stride, one.channels) == (other.stride, other.channels)
    if not same or one.cropped or other.cropped:
        return None
    batches, *sizes = zip((one.batch, *one.sizes), (other.batch, *other.sizes), strict=True)
    if any(None not in pair and len(set(pair)) > 1 for pair in (batches, *sizes)):
        return None
    if any(None in pair for pair, step in zip(sizes, one.stride, strict=True) if step == 1):
        return None
    known = tuple(size if size == twin else None for size, twin in sizes)
    batch = batches[0] if batches[0] == batches[1] else None
    return replace(other, sizes=known, batch=batch, group=1)
