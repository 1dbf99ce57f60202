"""Zero insertion + Conv: the SubPixel method, in whatever spelling.

    x -> zeros between its elements -> Conv -> y

``y = zeros; y[..., ::r, ::r] = x`` (ScatterND), reshape - pad - reshape, a stack with zeros, a
nearest Resize times a mask, a one-hot depthwise ConvTranspose: what counts is where each
element goes (`upsampled_conv`).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import upsampled_conv
from deployconv.match.site import Site


def recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in the Conv ``node``, or None."""
    return upsampled_conv.recognise(node, scope, view, name, "zero_insertion")
