"""What profiles say of interpolating Resizes agrees with what their runtimes did."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import Site, SkippedSite, find_sites
from deployconv.targets.catalogue import find_target
from deployconv.targets.rules import judge
from tests.build import FLOAT, graph, model, node, tensor, value

RESIZES = Path(__file__).parent / "earlier" / "resize.tsv"
AGREES = {"right": "fits", "cpu": "slow", "misread": "misread", "refused": "refused"}
COORDINATES = {
    "hp": "half_pixel",
    "php": "pytorch_half_pixel",
    "ac": "align_corners",
    "asym": "asymmetric",
    "hps": "half_pixel_symmetric",
    "tf": "tf_half_pixel_for_nn",
}


def resize(name: str) -> ModelProto:
    """The Resize that a name of the table stands for; see the table of the tests below."""
    mode, *parts = name.split("_")
    attributes: dict[str, Any] = {"mode": {"lin": "linear", "cub": "cubic"}[mode]}
    shape, scale, sizes = [1, 4, 10, 14], 2.0, None
    for part in parts:
        if part in COORDINATES:
            attributes["coordinate_transformation_mode"] = COORDINATES[part]
        elif part.startswith("f"):
            scale = float(part[1:])
        elif part.startswith("down"):
            scale = float(part[4:] or 0.5)
        elif part == "sizes":
            sizes = [23, 30]
        elif part == "aa":
            attributes["antialias"] = 1
        elif part == "len1":
            sizes = [1, 1]
        elif part in ("1d", "3d"):
            shape = [1, 4, *(20, 6, 5)[: int(part[0])]]
        elif part == "a.5":
            attributes["cubic_coeff_a"] = -0.5
        elif part == "exc":
            attributes["exclude_outside"] = 1
        elif part == "dyn":
            shape = [1, 4, "h", "w"]
        else:
            assert part == "up", part
    scales = np.array([1, 1, *[scale] * (len(shape) - 2)], np.float32)
    given = [tensor("scales", scales)]
    inputs = ["x", "", "scales"]
    if sizes is not None:
        given, inputs = [tensor("sizes", np.array([1, 4, *sizes]))], ["x", "", "", "sizes"]
    body = graph(
        [node("Resize", inputs, ["y"], name="up", **attributes)],
        [value("x", FLOAT, shape)],
        [value("y", FLOAT, [None] * len(shape))],
        given,
    )
    return model(body, 18)


@cache
def site_of(name: str) -> Site:
    (site,) = find_sites(view(load(resize(name))))
    return site


def rows() -> Iterator[tuple[str, str, str]]:
    """Layer, target and outcome of each cell of the table."""
    with RESIZES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            layer = row.pop("layer")
            yield from ((layer, target, outcome) for target, outcome in row.items() if outcome)


TARGETS = sorted({target for _, target, _ in rows()})


@pytest.mark.parametrize("target", TARGETS)
def test_profile_agrees_with_what_its_runtime_did(target: str) -> None:
    profile, found = find_target(target), []
    for layer, name, outcome in rows():
        site = site_of(layer)
        if name != target or isinstance(site, SkippedSite):
            continue
        said = judge(profile, site).site
        if said.verdict != AGREES[outcome]:
            found.append(f"{layer}: {said.verdict} ({said.text}), where it was {outcome}")
    assert found == []


def test_most_of_the_table_can_be_judged() -> None:
    layers = {layer for layer, _, _ in rows()}
    skipped = {layer for layer in layers if isinstance(site_of(layer), SkippedSite)}
    assert len(skipped) <= len(layers) // 10
