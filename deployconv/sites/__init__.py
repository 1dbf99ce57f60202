"""Recognisers: one file a pattern, each turns nodes into one site or a reason.

A new pattern is one file here, one entry in `RECOGNISERS`, one row in its test.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployconv.model.view import View
from deployconv.sites import conv_transpose
from deployconv.sites.site import (
    Geometry,
    Parameter,
    Site,
    Skip,
    SkippedSite,
    UpsampleSite,
)

RECOGNISERS = (conv_transpose.recognise,)
"""In order: the first that claims a node has it."""


def find_sites(view: View) -> Iterator[Site]:
    """Every upsampling layer of the model, scope by scope in node order."""
    names: set[str] = set()
    for scope in view.scopes:
        for node in scope.nodes:
            name = f"{scope.path}/{scope.label(node)}"
            if name in names:
                name = f"{name}#{scope.index(node)}"
            for recognise in RECOGNISERS:
                site = recognise(node, scope, view.constants, name)
                if site is not None:
                    names.add(name)
                    yield site
                    break


__all__ = [
    "Geometry",
    "Parameter",
    "Site",
    "Skip",
    "SkippedSite",
    "UpsampleSite",
    "find_sites",
]
