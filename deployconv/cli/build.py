"""``deployconv build``: does TensorRT take the model, for which GPUs, and at what size?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deployconv.cli.parameters import Json, Model, parse_shapes
from deployconv.cli.terminal import progress
from deployconv.errors import CheckFailed, UsageError


def build(
    model: Model,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="smNN",
            help="Compute capability to compile for, e.g. sm89; needs no GPU. Repeatable. "
            "Default: the GPU of this machine.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="tensorrt-rtx or tensorrt. Default: the first that is installed.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME:MIN..OPT..MAX",
            help="Sizes of a dynamic input, e.g. x:1,3,64,64..1,3,256,256..4,3,512,512, or one "
            "shape. Repeat for several inputs.",
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(
            "--engine",
            metavar="FILE",
            help="Write the engine; with several targets, one each: FILE.sm89.engine.",
        ),
    ] = None,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Let TensorRT 8 to 10 use float16; newer ones follow the model's types."
        ),
    ] = False,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing engine.")] = False,
) -> None:
    """Compile a model with TensorRT, ahead of time where targets are named."""
    ranges = parse_ranges(shape)
    from deployconv import api
    from deployconv.report import builds, console, document

    with progress(f"compiling {model}"):
        report = api.build(
            model,
            target=tuple(target or ()),
            backend=backend,
            shape=ranges,
            engine=engine,
            fp16=fp16,
            force=force,
        )
    if json:
        document.write(document.of_build(report))
    else:
        builds.print_build(console.stdout(), report)
    failed = next((built for built in report.targets if not built.builds), None)
    if failed is not None:
        raise CheckFailed(f"{model}: {builds.failure_line(failed)}")


def parse_ranges(values: Sequence[str] | None) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Turn ``["x:1,8..1,16..4,32"]`` into ``{"x": ((1, 8), (1, 16), (4, 32))}``.

    One shape stands for all three.

    Raises:
        UsageError: as `parse_shapes`, or where there are neither one nor three shapes.
    """
    ranges: dict[str, tuple[tuple[int, ...], ...]] = {}
    for value in values or ():
        name, _, sizes = value.rpartition(":")
        corners = [parse_shapes([f"{name}:{part}"])[name] for part in sizes.split("..")]
        if len(corners) not in (1, 3):
            raise UsageError(f"--shape {value!r}: expected NAME:MIN..OPT..MAX, or one shape")
        if name in ranges:
            raise UsageError(f"--shape {value!r}: input {name!r} has a shape already; give one")
        ranges[name] = tuple(corners * 3 if len(corners) == 1 else corners)
    return ranges
