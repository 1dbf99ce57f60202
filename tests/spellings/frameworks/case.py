"""A network of another framework, and the run that exports a module's networks.

Needs numpy and onnx, and what the module that lists the networks imports.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.spellings.corpus import REWRITTEN, Array, Family, Framework, Row, Shape, example, run_of
from tests.spellings.strip import strip

Sizes = Literal["static", "batch", "dynamic"]
"""Which axes of the inputs are dynamic: none, the batch, or the batch and the spatial axes."""
Network = Callable[..., Any]
"""The framework's function: tensors in, one tensor out."""
BRIEF = 160
"""Characters of an exporter's message that are kept."""


@dataclass(frozen=True, eq=False)
class Case:
    """One network, and what should become of it.

    Attributes:
        name: unique in its module.
        family: the kind of layer that the exported graph holds, "negative" for a look-alike.
        stride: upsampling factor of each spatial axis, None for a negative.
        inputs: shape of each input in the framework's layout.
        build: makes the network. The framework is imported inside.
        sizes: the exports to make.
        expect: see `tests.spellings.corpus.Spelling`; or "final".
        layers: how many upsampling layers it has.
        fixed: axes of the inputs that are never dynamic, besides the channels.
        channels_last: whether the channels are the last axis of the inputs, else the second.
        opset: what the exporter is asked for.
    """

    name: str
    family: Family
    stride: Shape | None
    inputs: tuple[Shape, ...]
    build: Callable[[], Network]
    sizes: tuple[Sizes, ...] = ("static", "dynamic")
    expect: str | None = REWRITTEN
    fixed: tuple[int, ...] = ()
    channels_last: bool = True
    opset: int | None = None
    layers: int = 1

    def dynamic_axes(self, shape: Shape, sizes: Sizes) -> tuple[int, ...]:
        """The axes of an input of this shape that are dynamic in this export."""
        channels = len(shape) - 1 if self.channels_last else 1
        axes = {"static": (), "batch": (0,), "dynamic": tuple(range(len(shape)))}[sizes]
        return tuple(axis for axis in axes if axis != channels and axis not in self.fixed)

    def shapes(self, sizes: Sizes) -> Iterator[tuple[Shape, ...]]:
        """The sizes to run at: those of the export, and others where it is dynamic."""
        yield self.inputs
        if sizes != "static":
            yield tuple(
                tuple(
                    size + (axis in self.dynamic_axes(shape, sizes)) * (1 if axis == 0 else 2)
                    for axis, size in enumerate(shape)
                )
                for shape in self.inputs
            )


@dataclass(frozen=True)
class Exported:
    """What a framework's module makes of a case: the model, and the framework's own values."""

    model: onnx.ModelProto
    compute: Callable[..., Any]


Export = Callable[[Case, Sizes], Exported]


def weights(*shape: int, start: int = 0) -> Array:
    """Small whole weights, none of them random, so that no sum is rounded."""
    flat = np.arange(prod(shape))
    values: NDArray[Any] = (flat * 3 + flat // 4 + start) % 7 - 3
    return values.reshape(shape).astype(np.float32)


def row_name(case: Case, sizes: Sizes) -> str:
    """The case's name; the sizes that `Row.dynamic` does not tell are part of it."""
    return case.name + ("_batch" if sizes == "batch" else "")


def _row(case: Case, sizes: Sizes, source: Framework, exported: Exported) -> Row:
    opset = next(entry.version for entry in exported.model.opset_import if not entry.domain)
    runs = []
    for shapes in case.shapes(sizes):
        output = np.asarray(exported.compute(*map(example, shapes)))
        runs.append(run_of(shapes, output))
    return Row(
        name=row_name(case, sizes),
        family=case.family,
        source=source,
        opset=opset,
        dynamic=sizes != "static",
        stride=case.stride,
        rank=len(case.stride or case.inputs[0][2:]),
        expect=case.expect,
        runs=tuple(runs),
        layers=case.layers,
    )


def _brief(error: BaseException) -> str:
    message = re.sub(r"0x[0-9a-f]+|/[\w/.-]+", "..", " ".join(str(error).split())) or "no message"
    return f"{type(error).__name__}: {message[:BRIEF]}"


def run(source: Framework, cases: Sequence[Case], export: Export) -> None:
    """Export ``cases`` into a folder: ``ID.onnx`` each, and ``SOURCE.json`` with the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=(), help="names of rows")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    refused: list[dict[str, str]] = []
    for case in cases:
        for sizes in case.sizes:
            if arguments.only and row_name(case, sizes) not in arguments.only:
                continue
            try:
                exported = export(case, sizes)
                row = _row(case, sizes, source, exported)
            except (Exception, SystemExit) as error:  # Paddle ends the program
                refused.append({"name": case.name, "sizes": sizes, "reason": _brief(error)})
                print(f"{source} {case.name} {sizes}: {refused[-1]['reason']}", flush=True)
                continue
            data = strip(exported.model).SerializeToString(deterministic=True)
            (folder / row.file).write_bytes(data)
            rows.append(row)
    made = {"rows": [asdict(row) for row in rows], "refused": refused}
    (folder / f"{source}.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    print(f"{source}: {len(rows)} exported, {len(refused)} refused")
