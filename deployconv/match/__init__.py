"""Finds the upsampling layers of a model: each becomes one site, or a reason why it stays.

Every module of this package that finds a pattern has a tuple ``RECOGNISERS``, and all of them are
collected here. A new pattern is a module with such a row and its name in `results.Pattern`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from deployconv.graph.view import View
from deployconv.match.attributes import Geometry
from deployconv.match.axis_map import ConcatInput
from deployconv.match.concat_site import ConcatSite
from deployconv.match.image_axes import AS_THEY_ARE, ImageAxes
from deployconv.match.recogniser import Recogniser, Site, SkippedSite
from deployconv.match.resample_site import ResampleSite
from deployconv.match.shuffle_site import ShuffleSite
from deployconv.match.site import Original, Pointwise, UpsampleSite
from deployconv.match.weights import Parameter, Quantized


def _recognisers() -> Iterator[Recogniser]:
    for module in pkgutil.iter_modules(__path__):
        yield from getattr(import_module(f"{__name__}.{module.name}"), "RECOGNISERS", ())


RECOGNISERS = tuple(_recognisers())
"""One or more per pattern, in any order: no two of them accept the same node."""


def find_sites(view: View) -> tuple[Site, ...]:
    """Every upsampling layer of the model, scope by scope in node order.

    A layer that is part of a larger site, as a Resize is of the Conv after it, is not listed by
    itself.
    """
    found: list[Site] = []
    parts: set[int] = set()
    # A larger site ends in a later node. What is part of it alone does not count.
    for site in reversed(list(_all_sites(view))):
        if id(site.nodes[-1]) not in parts:
            found.append(site)
            parts.update(id(node) for node in site.nodes[:-1])
    return tuple(reversed(found))


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
    "AS_THEY_ARE",
    "RECOGNISERS",
    "ConcatInput",
    "ConcatSite",
    "Geometry",
    "ImageAxes",
    "Original",
    "Parameter",
    "Pointwise",
    "Quantized",
    "Recogniser",
    "ResampleSite",
    "ShuffleSite",
    "Site",
    "SkippedSite",
    "UpsampleSite",
    "find_sites",
]
