"""For every layer, what keeps it off the DLA: as exported, and as it would be rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deployconv.match import ShuffleSite, Site, UpsampleSite
from deployconv.match.operators import Operators, Ranked, Window
from deployconv.results import DlaNote, Obstacle
from deployconv.rewrites.lowering import AnyPlan, ChainPlan, Plan, ShufflePlan
from deployconv.rewrites.lowering.shuffle import ShuffleName
from deployconv.runtimes.tensorrt import dla


def dla_note(found: Site, site: Site, plan: AnyPlan | None) -> DlaNote:
    """What keeps a layer off the DLA, as it was ``found`` and as ``site`` rewritten by ``plan``.

    Args:
        found: the layer as it stands in the model.
        site: the same, which may have taken in the layers after it.
        plan: how it is rewritten; None if it stays as it is.
    """
    rewritten = _rewritten(site, plan)
    return DlaNote(
        _unique(_obstacles(found.operators)),
        None if rewritten is None else _unique(_obstacles(rewritten)),
    )


def _unique(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    return tuple(dict.fromkeys(obstacles))


def _obstacles(layer: Operators) -> Iterator[Obstacle]:
    """What keeps any of the operators off the DLA, with repetitions."""
    if layer.channels_to_batch:
        yield Obstacle("operator", "Reshape of channels into the batch: the DLA keeps that apart")
    if layer.window is None:
        yield from dla.dtype_obstacle(layer.dtype)
    else:
        yield from dla.window_obstacles(dla.Window(**vars(layer.window)))
    yield from dla.operator_obstacles(layer.prelude)
    if layer.resize is not None:
        yield from dla.resize_obstacles(layer.resize)
    yield from dla.operator_obstacles(layer.others)
    yield from dla.size_obstacle(layer.sizes)


def _rewritten(site: Site, plan: AnyPlan | None) -> Operators | None:
    """The operators that replace a layer; None if it stays or they are not described."""
    if isinstance(plan, ChainPlan):
        plan = plan.head
    if isinstance(site, UpsampleSite) and isinstance(plan, Plan):
        c_in, c_out = site.channels
        window = Window(
            transposed=False,
            kernel=plan.conv_kernel,
            stride=(1,) * site.rank,
            dilation=(1,) * site.rank,
            pads=tuple(form.pads for form in plan.axes),
            group=site.group,
            channels=(c_in, c_out * plan.copies),
            dtype=site.weight.stored.name,
        )
        shuffle = plan.shuffle if plan.repeat is None else None
        return Operators(
            window,
            others=_shuffle(shuffle, site.stride) if shuffle is not None else (),
            resize=plan.repeat,
            prelude=tuple((node.op, None) for layers in site.prelude for node in layers.nodes),
            sizes=site.known_sizes,
            channels_to_batch=site.folded,
        )
    if isinstance(site, ShuffleSite) and isinstance(plan, ShufflePlan):
        others = _shuffle(plan.shuffle, plan.layout.stride)
        return Operators(site.conv.window if site.conv else None, others, site.dtype)
    return None


def _shuffle(shuffle: ShuffleName, stride: tuple[int, ...]) -> Ranked:
    """The operators of a portable shuffle; `inspect` plans no other."""
    if shuffle in ("dcr", "crd"):
        return (("DepthToSpace", 4),)
    dimensions = 2 + len(stride) + sum(step > 1 for step in stride)
    return (("Reshape", dimensions), ("Transpose", dimensions))
