"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deployconv.errors import UsageError

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX model file.")]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output instead.")
]
Backend = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="Runtime: ort (CPU), ort:cuda, ...")
]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="Runtime: ort (CPU), ort:cuda, ... Repeat for several. Default: ort.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME:1,3,H,W",
        help="Shape of a dynamic input, e.g. x:1,3,64,64. Repeat for several inputs.",
    ),
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        "--inputs",
        metavar="FILE.npz",
        help="Run the models on these arrays, named as the inputs, instead of random ones.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")]


def parse_shapes(values: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Turn ``["x:1,3,64,64"]`` into ``{"x": (1, 3, 64, 64)}``.

    The last colon separates, as the name of an input may hold colons.

    Raises:
        UsageError: where a value has no name, no sizes, or a size that is not a whole number
            of at least 0; or where an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values or ():
        name, _, sizes = value.rpartition(":")
        parts = [part.strip() for part in sizes.split(",")]
        if not name or not all(part.isascii() and part.isdigit() for part in parts):
            raise UsageError(
                f"--shape {value!r}: expected NAME:SIZE,SIZE,... with whole numbers, "
                "e.g. x:1,3,64,64"
            )
        if name in shapes:
            raise UsageError(f"--shape {value!r}: input {name!r} has a shape already; give one")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes
