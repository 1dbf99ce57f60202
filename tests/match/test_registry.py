"""Every pattern has its recogniser, and what is found depends on no order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.graph.view import View, view
from deployconv.match import RECOGNISERS, Recogniser, Site
from deployconv.results import Pattern
from tests.build import integers
from tests.match.graphs import CONV, NEAREST, floats, parsed

MODELS = Path(__file__).parents[2] / "models"


def resize_conv_shuffle() -> ModelProto:
    """The Conv belongs to the Resize before it, and not to the shuffle after it."""
    body = (
        f"z = Resize<{NEAREST}>(x, , scales) {CONV.replace('y =', 'c =')}"
        ' y = DepthToSpace<blocksize=2, mode="CRD">(c)'
    )
    weights = {"w": integers(4, 2, 3, 3, seed=1), "b": integers(4, seed=2)}
    return parsed(body, {"scales": floats(1, 1, 2, 2), **weights})


SOURCES = {
    "resize, conv, shuffle": resize_conv_shuffle(),
    **{path.stem: path for path in sorted(MODELS.glob("*.onnx"))},
}


def found(
    seen: View, recognisers: Sequence[Recogniser], backwards: bool = False
) -> dict[int, list[Site]]:
    """For each node, by its number in the graph, the sites that recognisers find to end in it."""
    nodes = [(scope, node) for scope in seen.scopes for node in scope.nodes]
    numbered = list(enumerate(nodes))
    sites = {}
    for number, (scope, node) in reversed(numbered) if backwards else numbered:
        made = [row.recognise(node, scope, seen, str(number)) for row in recognisers]
        sites[number] = [site for site in made if site is not None]
    return sites


def shown(sites: dict[int, list[Site]]) -> dict[int, list[tuple[object, ...]]]:
    return {
        number: [
            (type(site), site.pattern, site.geometry, [node.name for node in site.nodes])
            for site in found
        ]
        for number, found in sorted(sites.items())
    }


def test_every_pattern_has_a_recogniser() -> None:
    assert {row.pattern for row in RECOGNISERS} == set(get_args(Pattern))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_no_two_recognisers_accept_a_node(source: Path | ModelProto) -> None:
    seen = view(load(source))
    for row in RECOGNISERS:
        patterns = {site.pattern for sites in found(seen, [row]).values() for site in sites}
        assert patterns <= {row.pattern}
    assert max(map(len, found(seen, RECOGNISERS).values())) == 1


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_what_is_found_depends_on_no_order(source: Path | ModelProto) -> None:
    forwards = shown(found(view(load(source)), RECOGNISERS))
    assert shown(found(view(load(source)), RECOGNISERS, backwards=True)) == forwards
    assert shown(found(view(load(source)), RECOGNISERS[::-1])) == forwards


def test_a_conv_belongs_to_the_upsampling_before_it() -> None:
    sites = found(view(load(resize_conv_shuffle())), RECOGNISERS, backwards=True)
    made = [site for several in sites.values() for site in several]
    (shuffle,) = (site for site in made if site.pattern == "pixel_shuffle")
    assert [node.op for node in shuffle.nodes] == ["DepthToSpace"]
