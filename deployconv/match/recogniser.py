"""What a recogniser is: a function that finds the sites of one pattern.

A site is a layer that was found in a model. There are five types. An `UpsampleSite` has axes and
weights from which a rewrite is made. A `ConcatSite` is a Conv that reads several images, of which
some are upsampled. A `ShuffleSite` is a pixel shuffle. A `ResampleSite` is a Resize by
itself. A `SkippedSite` has a reason why it cannot be rewritten. What all of them have is in
`BaseSite`, besides ``geometry``, ``dtype`` and ``operators``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deployconv.match.attributes import Geometry
from deployconv.match.concat_site import ConcatSite
from deployconv.match.operators import Operators, stated_operators
from deployconv.match.resample_site import ResampleSite
from deployconv.match.shuffle_site import ShuffleSite
from deployconv.match.site import BaseSite, UpsampleSite
from deployconv.results import Pattern, Reason

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.graph.scope import Scope
    from deployconv.graph.view import View


@dataclass(frozen=True, eq=False, kw_only=True)
class SkippedSite(BaseSite):
    """A node that looks like an upsampling layer and cannot be rewritten exactly.

    ``enlarges`` is False for a Resize that shrinks, see `ResampleSite.enlarges`.
    """

    reason: Reason = field()
    enlarges: bool = True
    geometry: Geometry | None = None
    dtype: str | None = None

    @property
    def operators(self) -> Operators:
        """The operators as far as the nodes state them."""
        return stated_operators(self.nodes, self.geometry, self.dtype)


Site = UpsampleSite | ConcatSite | ShuffleSite | ResampleSite | SkippedSite
"""A layer found in a model."""


@dataclass(frozen=True)
class Recogniser:
    """A pattern, and the function that finds its sites.

    ``recognise(node, scope, view, id)`` returns the site with this ``id`` if one ends in
    ``node``, else None. No two recognisers accept the same node.
    """

    pattern: Pattern
    recognise: Callable[[gs.Node, Scope, View, str], Site | None]
