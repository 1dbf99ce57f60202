"""Recognisers: one file a pattern, each turns nodes into one site or a reason.

A new pattern is one file here, one entry in `RECOGNISERS`, one row in its test.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployconv.graph.view import View
from deployconv.match import (
    conv_transpose,
    nearest_resize,
    pixel_shuffle,
    quantized_operator,
    zero_insertion,
)
from deployconv.match.site import (
    Geometry,
    Original,
    Parameter,
    Pointwise,
    Quantized,
    ShuffleSite,
    Site,
    Skip,
    SkippedSite,
    UpsampleSite,
)

RECOGNISERS = (
    zero_insertion.recognise,
    nearest_resize.recognise,
    pixel_shuffle.recognise,
    conv_transpose.recognise,
    quantized_operator.recognise,
)
"""In order: the first that claims a node has it."""


def find_sites(view: View) -> tuple[Site, ...]:
    """Every upsampling layer of the model, scope by scope in node order.

    A layer that serves only a longer site, as a Resize does the Conv behind it, is no site of
    its own.
    """
    sites = list(_claims(view))
    parts = {id(node) for site in sites for node in site.nodes[:-1]}
    return tuple(site for site in sites if id(site.nodes[-1]) not in parts)


def _claims(view: View) -> Iterator[Site]:
    names: set[str] = set()
    for scope in view.scopes:
        for node in scope.nodes:
            name = f"{scope.path}/{scope.label(node)}"
            if name in names:
                name = f"{name}#{scope.index(node)}"
            for recognise in RECOGNISERS:
                site = recognise(node, scope, view, name)
                if site is not None:
                    names.add(name)
                    yield site
                    break


__all__ = [
    "Geometry",
    "Original",
    "Parameter",
    "Pointwise",
    "Quantized",
    "ShuffleSite",
    "Site",
    "Skip",
    "SkippedSite",
    "UpsampleSite",
    "find_sites",
]
