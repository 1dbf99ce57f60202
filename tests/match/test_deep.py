from __future__ import annotations

import deployconv
from tests.build import integers, model, node
from tests.runtimes.tiny import FLOAT, INT64, constant, graph, value

DEEP = 2000
"""More layers than Python's recursion limit."""


def test_a_network_of_thousands_of_layers() -> None:
    """Of every tensor before a Reshape it is found out whether it depends on data."""
    nodes = [node("Neg", ["x"], ["h0"])]
    nodes += [node("Neg", [f"h{i}"], [f"h{i + 1}"]) for i in range(DEEP)]
    nodes.append(node("Reshape", [f"h{DEEP}", "shape"], ["image"]))
    nodes.append(node("ConvTranspose", ["image", "w"], ["y"], strides=[2, 2]))
    shape = constant("shape", [1, 2, 3, 3], dtype=INT64)
    weights = [shape, constant("w", integers(2, 3, 4, 4))]
    body = graph(nodes, [value("x", FLOAT, [18])], [value("y", FLOAT, [1, 3, 8, 8])], weights)
    (site,) = deployconv.inspect(model(body)).sites
    assert site.status == "rewritten"
