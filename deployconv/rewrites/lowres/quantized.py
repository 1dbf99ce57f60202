"""Where a chain ends that runs through QuantizeLinear.

    site -> Relu -> QuantizeLinear -> DequantizeLinear -> next layer

Runtimes make an integer Conv of DequantizeLinear, Conv, QuantizeLinear where they stand side by
side. So the QuantizeLinear runs before the shuffle, and the DequantizeLinear behind it stays
beside the next layer, which wants to be an integer one too.
"""

from __future__ import annotations

from dataclasses import replace

from deployconv.rewrites.lowres.chain import Chain
from deployconv.rewrites.lowres.link import PointwiseLink, ShuffleLink


def first_grid(chain: Chain) -> Chain | None:
    """``chain`` up to its first QuantizeLinear; None where it has none."""
    for position, link in enumerate(chain.links):
        if link.node.op == "QuantizeLinear":
            return replace(chain, links=chain.links[: position + 1])
    return None


def without_last_dequantize(chain: Chain) -> Chain | None:
    """``chain`` without a DequantizeLinear at its end; None where nothing else is left."""
    links = list(chain.links)
    while links and links[-1].node.op == "DequantizeLinear":
        links.pop()
    return replace(chain, links=tuple(links)) if links else None


def grid_at_end(chain: Chain) -> PointwiseLink | None:
    """The QuantizeLinear that ends ``chain``, if one does, pixel shuffles behind it aside."""
    for link in reversed(chain.links):
        if isinstance(link, PointwiseLink):
            return link if link.node.op == "QuantizeLinear" else None
        if not isinstance(link, ShuffleLink):
            break
    return None
