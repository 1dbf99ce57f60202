"""Site by site, what keeps a layer off the DLA: as exported, and as it would be rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_graphsurgeon as gs

from deployconv.match import ShuffleSite, Site, SkippedSite, UpsampleSite
from deployconv.polyphase import Axis
from deployconv.results import DlaNote, Obstacle
from deployconv.rewrites.lowering import AnyPlan, ChainPlan, Plan, ShufflePlan
from deployconv.rewrites.lowering.shuffle import ShuffleName
from deployconv.runtimes.tensorrt.dla import (
    Window,
    dtype_obstacle,
    operator_obstacles,
    resize_obstacles,
    size_obstacle,
    window_obstacles,
)


def dla_note(found: Site, site: Site, plan: AnyPlan | None) -> DlaNote:
    """What keeps a layer off the DLA, as it was ``found`` and as ``site`` by ``plan``.

    ``site`` may have taken in what stands behind; ``plan`` is None where it stays as it is.
    """
    exported = tuple(dict.fromkeys(_exported(found)))
    if isinstance(plan, ChainPlan):
        plan = plan.head
    if isinstance(site, UpsampleSite) and isinstance(plan, Plan):
        return DlaNote(exported, tuple(dict.fromkeys(_rewritten(site, plan))))
    if isinstance(site, ShuffleSite) and isinstance(plan, ShufflePlan):
        in_front = _conv_in_front(site)
        return DlaNote(exported, tuple(dict.fromkeys((*in_front, *_shuffle(plan)))))
    return DlaNote(exported)


def _exported(site: Site) -> Iterator[Obstacle]:
    if isinstance(site, ShuffleSite):
        yield from _conv_in_front(site)
        yield from operator_obstacles(_operators(site.nodes[1:] if site.conv else site.nodes))
        return
    if isinstance(site, SkippedSite):
        yield from _skipped(site)
        return
    transposed = site.pattern == "conv_transpose"
    yield from window_obstacles(
        Window(
            transposed=transposed,
            kernel=tuple(axis.taps for axis in site.axes),
            stride=site.stride if transposed else (1,) * site.rank,
            dilation=tuple(abs(axis.step) for axis in site.axes),
            pads=tuple(map(_transposed_pads, site.axes)) if transposed else _stated(site.layer),
            group=site.group,
            channels=site.channels,
            dtype=site.weight.stored.name,
        )
    )
    if site.pattern == "nearest_resize" and {"Resize", "Upsample"} & {n.op for n in site.nodes}:
        yield from resize_obstacles(site.stride)
    yield from operator_obstacles(_operators(site.nodes[:-1]))
    yield from _sizes(site)


def _rewritten(site: UpsampleSite, plan: Plan) -> Iterator[Obstacle]:
    if site.folded:
        yield Obstacle("operator", "Reshape of channels into the batch: the DLA keeps that apart")
    c_in, c_out = site.channels
    yield from window_obstacles(
        Window(
            transposed=False,
            kernel=plan.conv_kernel,
            stride=(1,) * site.rank,
            dilation=(1,) * site.rank,
            pads=tuple(form.pads for form in plan.axes),
            group=site.group,
            channels=(c_in, c_out * plan.copies),
            dtype=site.weight.stored.name,
        )
    )
    yield from operator_obstacles(
        (node.op, None) for layers in site.prelude for node in layers.nodes
    )
    if plan.repeat is not None:
        yield from resize_obstacles(plan.repeat)
    elif plan.shuffle is not None:
        yield from operator_obstacles(_spelled(plan.shuffle, site.stride))
    yield from _sizes(site)


def _shuffle(plan: ShufflePlan) -> tuple[Obstacle, ...]:
    return operator_obstacles(_spelled(plan.shuffle, plan.layout.stride))


def _spelled(shuffle: ShuffleName, stride: tuple[int, ...]) -> Iterable[tuple[str, int | None]]:
    """The operators of a portable shuffle; no other is planned by `inspect`."""
    if shuffle in ("dcr", "crd"):
        return (("DepthToSpace", 4),)
    dimensions = 2 + len(stride) + sum(step > 1 for step in stride)
    return (("Reshape", dimensions), ("Transpose", dimensions))


def _conv_in_front(site: ShuffleSite) -> tuple[Obstacle, ...]:
    conv = site.conv
    if conv is None:
        return dtype_obstacle(site.dtype)
    outputs, inputs = conv.weight.shape[:2]
    return window_obstacles(
        Window(
            transposed=False,
            kernel=conv.kernel,
            stride=tuple(conv.node.attrs.get("strides", (1,) * len(conv.kernel))),
            dilation=conv.dilation,
            pads=_stated(conv.node),
            group=conv.group,
            channels=(inputs * conv.group, outputs),
            dtype=conv.weight.stored.name,
        )
    )


def _skipped(site: SkippedSite) -> Iterator[Obstacle]:
    """As far as the node says: its channels are not known, its pads where they are stated."""
    geometry, last = site.geometry, site.nodes[-1]
    if geometry is None or geometry.kernel is None:
        yield from dtype_obstacle(site.dtype)
        yield from operator_obstacles(_operators(site.nodes))
        return
    transposed = last.op == "ConvTranspose"
    pads = _stated(last)
    if transposed and any(last.attrs.get("output_padding", ())):
        begins_ends = pads or ((0, 0),) * len(geometry.kernel)
        added = last.attrs["output_padding"]
        pads = tuple((b, e - more) for (b, e), more in zip(begins_ends, added, strict=False))
    yield from window_obstacles(
        Window(
            transposed=transposed,
            kernel=geometry.kernel,
            stride=geometry.stride if transposed else (1,) * len(geometry.kernel),
            dilation=geometry.dilation or (1,) * len(geometry.kernel),
            pads=pads,
            group=geometry.group or 1,
            channels=(1, 1),
            dtype=site.dtype,
        )
    )
    yield from operator_obstacles(_operators(site.nodes[:-1]))


def _sizes(site: UpsampleSite) -> tuple[Obstacle, ...]:
    known = [(axis, size) for axis, size in zip(site.axes, site.sizes, strict=True) if size]
    return size_obstacle([*site.sizes, *(axis.output_size(size) for axis, size in known)])


def _transposed_pads(axis: Axis) -> tuple[int, int]:
    """What is cut off in front, and at the end less the output_padding."""
    reach = abs(axis.step) * (axis.taps - 1) + 1
    return axis.origin, reach - axis.stride - axis.origin - axis.extra


def _stated(node: gs.Node) -> tuple[tuple[int, int], ...] | None:
    """The pads of ``node`` where it states them as numbers."""
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    pads = node.attrs.get("pads")
    if not isinstance(pads, (list, tuple)):
        return None
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


def _operators(nodes: Iterable[gs.Node]) -> Iterator[tuple[str, int | None]]:
    """Each operator with the dimensions of its largest tensor, as far as they are known."""
    for node in nodes:
        tensors = (*node.inputs[:1], *node.outputs)
        ranks = [len(tensor.shape) for tensor in tensors if tensor.shape is not None]
        yield node.op, max(ranks, default=None)
