"""What a spelling is, and the committed graphs of all of them; needs no torch."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

DATA = Path(__file__).parent / "data"
MANIFEST = DATA / "manifest.json"
GRAPHS = DATA / "graphs.tar.xz"
"""One file ``<id>.onnx`` a row: so alike that together they take a twentieth of their size."""
FRAMEWORK_MANIFEST = DATA / "frameworks.json"
FRAMEWORK_GRAPHS = DATA / "frameworks.tar.xz"
"""The same for the exports of the other frameworks."""

Family = Literal["conv_transpose", "zero_insertion", "nearest_resize", "pixel_shuffle", "negative"]
Exporter = Literal["dynamo", "legacy"]
"""``torch.onnx.export(..., dynamo=True)``, or ``dynamo=False`` (by TorchScript)."""
Framework = Literal["tensorflow", "keras", "jax", "paddle"]
FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)
Source = Literal["dynamo", "legacy", "handmade", Framework]
"""PyTorch's exporter, written as text for onnx.parser, or another framework's exporter."""

Shape = tuple[int, ...]
Array = NDArray[np.float32]
Axes = Mapping[int, str]

REWRITTEN = "rewritten"
"""`Spelling.expect`: recognised and replaced."""
KEPT = "kept"
"""`Spelling.expect`: recognised, and already in its cheapest spelling."""
FINAL = "final"
"""`Row.expect`: rewritten, or recognised and already in its cheapest spelling."""
SAME = "same"
"""`Spelling.expect_dynamic`: as the static export."""

_AXES = ("height", "width")
_AXES_3D = ("depth", *_AXES)


def every_axis(shape: Shape) -> Axes:
    """Batch and spatial axes of ``[N, C, ...]`` by name: all but the channels are dynamic."""
    spatial = {3: ("length",), 4: _AXES, 5: _AXES_3D}[len(shape)]
    return {0: "batch", **{axis + 2: name for axis, name in enumerate(spatial)}}


@dataclass(frozen=True, eq=False)
class Spelling:
    """One way to write an upsampling layer, or something that looks like one.

    Attributes:
        name: unique in the corpus.
        module_builder: makes the network, in eval mode or not.
        inputs: shape of each input, ``[N, C, i_1 .. i_n]``.
        dynamic_axes: per input, names of its dynamic axes; None where only static makes sense.
        stride: upsampling factor of each spatial axis, None for a negative.
        rank: number of spatial axes.
        expect: what becomes of the layer under ``--policy all``: "rewritten", "kept", the code of
            the reason why it is left alone, or None for untouched: not listed, or listed with
            whatever reason. It speaks of this family's pattern; a ConvTranspose in the graph is
            a site of its own.
        expect_dynamic: the same for the export with dynamic axes, where it differs.
    """

    name: str
    family: Family
    module_builder: Callable[[], nn.Module]
    inputs: tuple[Shape, ...]
    dynamic_axes: tuple[Axes, ...] | None
    stride: Shape | None
    rank: int
    expect: str | None
    expect_dynamic: str | None = SAME

    def expectation(self, dynamic: bool) -> str | None:
        """What should become of the static or of the dynamic export."""
        if dynamic and self.expect_dynamic != SAME:
            return self.expect_dynamic
        return self.expect


@dataclass(frozen=True)
class Run:
    """Inputs of these shapes give an output of that shape and digest (see `digest`)."""

    inputs: tuple[Shape, ...]
    output: Shape
    sha256: str

    def feeds(self, model: onnx.ModelProto) -> dict[str, Array]:
        """The inputs for ``model``, by name."""
        names = [value.name for value in model.graph.input]
        return {name: example(shape) for name, shape in zip(names, self.inputs, strict=False)}


def _id(name: str, source: Source, opset: int, dynamic: bool) -> str:
    return f"{name}-{source}{opset}" + ("-dynamic" if dynamic else "")


@dataclass(frozen=True)
class Row:
    """One committed graph: a spelling as one exporter writes it, with ``layers`` such layers."""

    name: str
    family: Family
    source: Source
    opset: int
    dynamic: bool
    stride: Shape | None
    rank: int
    expect: str | None
    runs: tuple[Run, ...]
    layers: int = 1

    @property
    def id(self) -> str:
        """``name-source-opset``, with ``-dynamic`` where sizes are."""
        return _id(self.name, self.source, self.opset, self.dynamic)

    @property
    def file(self) -> str:
        """Name of the graph in its archive."""
        return f"{self.id}.onnx"

    def data(self) -> bytes:
        """The graph as a file holds it."""
        return graphs(FRAMEWORK_GRAPHS if self.source in FRAMEWORKS else GRAPHS)[self.file]

    def model(self) -> onnx.ModelProto:
        """The graph, read anew: the caller may edit it."""
        return onnx.load_from_string(self.data())


@dataclass(frozen=True)
class Gap:
    """A spelling that an exporter does not write, and why."""

    name: str
    source: Source
    opset: int
    dynamic: bool
    reason: str

    @property
    def id(self) -> str:
        """What the row's id would be."""
        return _id(self.name, self.source, self.opset, self.dynamic)


def example(shape: Shape) -> Array:
    """A float32 input of small integers, no two near each other alike: nothing to round."""
    flat = np.arange(prod(shape))
    values = (flat * 7 + flat // 5) % 13 - 6
    return values.reshape(shape).astype(np.float32)


def digest(array: Array) -> str:
    """SHA-256 of the values, short; -0.0 counts as 0.0."""
    positive = np.ascontiguousarray(array, dtype="<f4") + np.float32(0)
    return hashlib.sha256(positive.tobytes()).hexdigest()[:16]


def run_of(inputs: tuple[Shape, ...], output: Array) -> Run:
    """What ``output`` is, to be held against another computation from the same inputs."""
    return Run(inputs, tuple(output.shape), digest(output))


@cache
def graphs(archive: Path = GRAPHS) -> Mapping[str, bytes]:
    """What an archive of graphs holds, by file name, in its order; read once."""
    with tarfile.open(archive, "r:xz") as files:
        members = ((member.name, files.extractfile(member)) for member in files)
        return {name: file.read() for name, file in members if file is not None}


def _shapes(values: Any) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for shape in values)


@cache
def _manifest(path: Path = MANIFEST) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def row_of(entry: dict[str, Any]) -> Row:
    """A row as the manifest holds it."""
    return Row(
        name=entry["name"],
        family=entry["family"],
        source=entry["source"],
        opset=entry["opset"],
        dynamic=entry["dynamic"],
        stride=tuple(entry["stride"]) if entry["stride"] else None,
        rank=entry["rank"],
        expect=entry["expect"],
        runs=tuple(
            Run(_shapes(run["inputs"]), tuple(run["output"]), run["sha256"])
            for run in entry["runs"]
        ),
        layers=entry.get("layers", 1),
    )


@cache
def rows() -> tuple[Row, ...]:
    """Every committed graph of PyTorch's exporters or by hand, in the order of the manifest."""
    return tuple(map(row_of, _manifest()["rows"]))


@cache
def framework_rows() -> tuple[Row, ...]:
    """Every committed graph of the other frameworks' exporters."""
    return tuple(map(row_of, _manifest(FRAMEWORK_MANIFEST)["rows"]))


@cache
def gaps() -> tuple[Gap, ...]:
    """Every export that was tried and is not there."""
    return tuple(Gap(**entry) for entry in _manifest()["not_exportable"])
