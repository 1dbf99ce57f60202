"""``deployconv bench``: how fast is a model, or a pair of them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployconv.cli.parameters import Backends, Json, Shapes, parse_shapes
from deployconv.cli.terminal import progress
from deployconv.errors import UsageError
from deployconv.runtimes import names_with


def bench(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="ONNX model file.")] = None,
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
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Also show where the time goes, by site, as TensorRT's profiler takes it "
            f"(backends {' and '.join(names_with('profiles_layers'))}).",
        ),
    ] = False,
    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph",
            help="Time launches of a captured CUDA graph "
            f"(backends {' and '.join(names_with('captures_graphs'))}).",
        ),
    ] = False,
    saved: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE.json",
            help="Show a timing taken elsewhere, as --json printed it or scripts/bench_jetson.sh "
            "wrote it, and time nothing.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Time one model, or two in turns."""
    if saved is not None:
        asked = (backend, shape, threads, runs, profile, cuda_graph, json)
        if model is not None or any(asked):
            raise UsageError(f"--from {saved}: shows what is in the file: give nothing else")
        _show(saved)
        return
    if model is None:
        raise UsageError("nothing to time: name a MODEL, or a timing taken elsewhere with --from")
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
            profile=profile,
            cuda_graph=cuda_graph,
        )
    if json:
        document.write(document.of_timing(latencies, models))
    else:
        console.print_latency(console.stdout(), latencies, models)


def _show(saved: Path) -> None:
    from deployconv.report import console
    from deployconv.report.saved import read_timing
    from deployconv.report.text import one_line

    timing = read_timing(saved)
    out = console.stdout()
    console.print_latency(out, timing.latencies, timing.models)
    lines = (f"{key}: {value}" for key, value in timing.conditions.items())
    console.print_lines(out, *map(one_line, lines), f"read from {saved}; nothing was timed here")
