"""Targets and models for tests: an NPU with few operators, and networks that fit it or do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto

from tests.build import FLOAT, graph, integers, model, node, tensor, value

NPU = """
name = "npu"
title = "an NPU with five operators"

[takes]
operators = ["Conv", "Relu", "Concat", "Reshape", "Transpose"]
max_rank = 4
"""


def written(folder: Path, text: str, name: str = "npu.toml") -> str:
    """The path of a file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def unet() -> ModelProto:
    """Down by strided Convs, up by ConvTransposes of kernel 2 and 4, with skip connections."""
    weights = {
        "in": integers(4, 1, 3, 3),
        "down1": integers(8, 4, 3, 3, seed=1),
        "down2": integers(8, 8, 3, 3, seed=2),
        "up1": integers(8, 8, 2, 2, seed=3),
        "join1": integers(8, 16, 3, 3, seed=4),
        "up2": integers(8, 4, 4, 4, seed=5),
        "join2": integers(2, 8, 3, 3, seed=6),
    }
    same, half = {"pads": [1] * 4}, {"pads": [1] * 4, "strides": [2, 2]}
    nodes = [
        node("Conv", ["x", "in"], ["a"], **same),
        node("Relu", ["a"], ["a1"]),
        node("Conv", ["a1", "down1"], ["b"], **half),
        node("Relu", ["b"], ["b1"]),
        node("Conv", ["b1", "down2"], ["c"], **half),
        node("ConvTranspose", ["c", "up1"], ["d"], name="up1", strides=[2, 2]),
        node("Concat", ["b1", "d"], ["e"], axis=1),
        node("Conv", ["e", "join1"], ["f"], **same),
        node("ConvTranspose", ["f", "up2"], ["g"], name="up2", **half),
        node("Concat", ["a1", "g"], ["h"], axis=1),
        node("Conv", ["h", "join2"], ["y"], **same),
    ]
    return _network(nodes, weights, [1, 1, 8, 8])


def dcgan(last: str = "Relu") -> ModelProto:
    """From one pixel to 8x8 by three ConvTransposes, with an activation at the end."""
    weights = {
        "w1": integers(6, 8, 4, 4),
        "w2": integers(8, 4, 4, 4, seed=1),
        "w3": integers(4, 1, 3, 3, seed=2),
    }
    nodes = [
        node("ConvTranspose", ["x", "w1"], ["a"], name="up1", strides=[1, 1]),
        node("Relu", ["a"], ["b"]),
        node("ConvTranspose", ["b", "w2"], ["c"], name="up2", strides=[2, 2], pads=[1] * 4),
        node("Relu", ["c"], ["d"]),
        node(
            "ConvTranspose",
            *(["d", "w3"], ["e"]),
            name="up3",
            **{"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]},
        ),
        node(last, ["e"], ["y"], name="last"),
    ]
    return _network(nodes, weights, [1, 6, 1, 1])


def _network(nodes: list, weights: dict[str, np.ndarray], shape: list[int]) -> ModelProto:
    body = graph(
        nodes,
        [value("x", FLOAT, shape)],
        [value("y", FLOAT, [None] * 4)],
        [tensor(name, array) for name, array in weights.items()],
    )
    return model(body)
