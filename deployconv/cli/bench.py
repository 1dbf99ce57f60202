"""``deployconv bench``: how fast is a model, or a pair of them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployconv.cli.parameters import Backends, Json, Model, Shapes, parse_shapes
from deployconv.cli.terminal import progress


def bench(
    model: Model,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER", help="A second model, timed in turns with the first."),
    ] = None,
    backend: Backends = None,
    shape: Shapes = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of the runtime.")
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", min=1, help="Timed runs a model.")] = None,
    json: Json = False,
) -> None:
    """Time one model, or two in turns."""
    shapes = parse_shapes(shape)
    from deployconv import api
    from deployconv.report import console, document

    models = [str(path) for path in (model, other) if path is not None]
    with progress(f"timing {' and '.join(models)}"):
        latencies = api.bench(
            model,
            other,
            backend=tuple(backend or ("ort",)),
            shape=shapes,
            threads=threads,
            runs=runs,
        )
    if json:
        document.write(document.of_timing(latencies))
    else:
        console.print_latency(console.stdout(), latencies, models)
