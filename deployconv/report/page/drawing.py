"""Lay out small graphs of nodes, from the top to the bottom, for the template to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployconv.report.lines import one_line

WIDTH, GAP_X, GAP_Y = 210, 24, 46
"""Size of a box, and the gaps between boxes, in pixels."""
_LINE, _PADDING = 15, 9
_LONGEST = 30
_MOST_NODES = 60


@dataclass(frozen=True)
class Box:
    """A node, or a tensor that comes from or goes to the rest of the model."""

    x: float
    y: float
    height: float
    title: str
    lines: tuple[str, ...]
    kind: str
    name: str


@dataclass(frozen=True)
class Arrow:
    """A tensor from one box to another, with its shape beside it."""

    path: str
    head: str
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Picture:
    """A graph that is laid out; ``words`` say the same for a reader who does not see it."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    words: str


def lay_out(graph: Mapping[str, Any], kind: str) -> Picture | None:
    """Return the picture of a `DrawnGraph`; None if it has no node or too many to be read.

    Args:
        graph: as it stands in the JSON document.
        kind: ``removed`` or ``added``, the class of its boxes.
    """
    import networkx as nx

    nodes = graph["nodes"]
    if not 0 < len(nodes) <= _MOST_NODES:
        return None
    makers = {name: place for place, node in enumerate(nodes) for name in node["outputs"]}
    read = {name for node in nodes for name in node["inputs"]}
    net = nx.DiGraph()
    for place, node in enumerate(nodes):
        net.add_node(place)
        for name in node["inputs"]:
            net.add_edge(makers.get(name, f"in:{name}"), place, tensor=name)
        for name in node["outputs"]:
            if name not in read:
                net.add_edge(place, f"out:{name}", tensor=name)
    if not nx.is_directed_acyclic_graph(net):
        return None
    for layer, members in enumerate(nx.topological_generations(net)):
        for member in members:
            net.nodes[member]["layer"] = layer
    _lower_inputs(net)
    rows: dict[int, list[Any]] = {}
    for member, data in net.nodes(data=True):
        rows.setdefault(data["layer"], []).append(member)
    return _drawn(net, [rows[layer] for layer in sorted(rows)], graph, kind)


def _lower_inputs(net: Any) -> None:
    """Put each tensor from outside just above the first node that reads it."""
    for member, data in net.nodes(data=True):
        if isinstance(member, str) and member.startswith("in:"):
            data["layer"] = min(net.nodes[after]["layer"] for after in net.successors(member)) - 1


def _drawn(net: Any, rows: list[list[Any]], graph: Mapping[str, Any], kind: str) -> Picture:
    widest = max(map(len, rows))
    width = widest * (WIDTH + GAP_X) - GAP_X + 4
    boxes: dict[Any, Box] = {}
    y = 2.0
    for row in rows:
        left = (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        for place, member in enumerate(row):
            boxes[member] = _box(member, left + place * (WIDTH + GAP_X), y, graph, kind)
        y += max(boxes[member].height for member in row) + GAP_Y
    arrows = tuple(
        _arrow(boxes[source], boxes[target], _cut(graph["shapes"].get(data["tensor"], "")))
        for source, target, data in net.edges(data=True)
    )
    words = ", then ".join(one_line(node["operator"]) for node in graph["nodes"])
    return Picture(width, y - GAP_Y + 4, tuple(boxes.values()), arrows, words)


def _box(member: Any, x: float, y: float, graph: Mapping[str, Any], kind: str) -> Box:
    if isinstance(member, str):
        name = one_line(member.partition(":")[2])
        return Box(x, y, _LINE + 2 * _PADDING - 4, _cut(name), (), "tensor", name)
    node = graph["nodes"][member]
    lines = tuple(_cut(one_line(line)) for line in node["detail"])
    height = _LINE * (1 + len(lines)) + 2 * _PADDING
    return Box(x, y, height, one_line(node["operator"]), lines, kind, one_line(node["name"]))


def _arrow(source: Box, target: Box, label: str) -> Arrow:
    start = source.x + WIDTH / 2, source.y + source.height
    end = target.x + WIDTH / 2, target.y - 6
    bend = (end[1] - start[1]) / 2
    path = (
        f"M{start[0]:g} {start[1]:g}C{start[0]:g} {start[1] + bend:g} "
        f"{end[0]:g} {end[1] - bend:g} {end[0]:g} {end[1]:g}"
    )
    head = f"M{end[0]:g} {end[1] + 6:g}l-4 -7h8z"
    return Arrow(path, head, (start[0] + end[0]) / 2 + 6, (start[1] + end[1]) / 2 + 4, label)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
