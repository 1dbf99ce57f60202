"""For every layer, what keeps it off the DLA: as exported, and as it would be rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deployconv.match import Site
from deployconv.match.operators import Operators
from deployconv.results import DlaNote, Obstacle
from deployconv.rewrites.base import Rewrite
from deployconv.runtimes.tensorrt import dla


def dla_note(found: Site, rewrite: Rewrite | None) -> DlaNote:
    """What keeps a layer off the DLA.

    Args:
        found: the layer as it stands in the model.
        rewrite: what takes its place; None if it stays as it is.
    """
    operators = None if rewrite is None else rewrite.operators
    return DlaNote(
        _unique(_obstacles(found.operators)),
        None if operators is None else _unique(_obstacles(operators)),
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
    yield from dla.operator_obstacles(layer.pointwise_before)
    if layer.resize is not None:
        yield from dla.resize_obstacles(layer.resize)
    yield from dla.operator_obstacles(layer.others)
    yield from dla.size_obstacle(layer.sizes)
