"""Finds the upsampling layers of a model: each becomes one site, or a reason why it stays.

A new pattern is a recogniser, an entry in `RECOGNISERS` and a row in its test.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployconv.graph.view import View
from deployconv.match import conv_transpose, pixel_shuffle, upsampled_conv
from deployconv.match.site import (
    Geometry,
    Original,
    Parameter,
    Pointwise,
    Quantized,
    Recogniser,
    ShuffleSite,
    Site,
    Skip,
    SkippedSite,
    UpsampleSite,
)

RECOGNISERS = (
    *upsampled_conv.RECOGNISERS,
    *pixel_shuffle.RECOGNISERS,
    *conv_transpose.RECOGNISERS,
)
"""In order: the first that accepts a node has it."""


def find_sites(view: View) -> tuple[Site, ...]:
    """Every upsampling layer of the model, scope by scope in node order.

    A layer that is part of a larger site, as a Resize is of the Conv after it, is not listed by
    itself.
    """
    sites = list(_all_sites(view))
    parts = {id(node) for site in sites for node in site.nodes[:-1]}
    return tuple(site for site in sites if id(site.nodes[-1]) not in parts)


def _all_sites(view: View) -> Iterator[Site]:
    names: set[str] = set()
    for scope in view.scopes:
        for node in scope.nodes:
            name = f"{scope.path}/{scope.label(node)}"
            if name in names:
                name = f"{name}#{scope.index(node)}"
            for recogniser in RECOGNISERS:
                site = recogniser.recognise(node, scope, view, name)
                if site is not None:
                    names.add(name)
                    yield site
                    break


__all__ = [
    "RECOGNISERS",
    "Geometry",
    "Original",
    "Parameter",
    "Pointwise",
    "Quantized",
    "Recogniser",
    "ShuffleSite",
    "Site",
    "Skip",
    "SkippedSite",
    "UpsampleSite",
    "find_sites",
]
