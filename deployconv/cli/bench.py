"""``deployconv bench``: how fast a model is, or two of them in turns."""

from __future__ import annotations

from pathlib import Path

import click

from deployconv.cli.parameters import arguments, as_path, json_flag, model_from, with_options
from deployconv.cli.terminal import progress
from deployconv.errors import UsageError
from deployconv.options import BenchCommand


@click.command
@click.argument("model", metavar="[MODEL", required=False, type=as_path)
@click.argument("other", metavar="[OTHER]]", required=False, type=as_path)
@with_options(BenchCommand)
@click.option(
    "--from",
    "saved",
    metavar="FILE.json",
    type=as_path,
    help="Show a timing taken elsewhere, as --json printed it or scripts/bench_jetson.sh wrote it,"
    " and time nothing.",
)
@json_flag
@click.pass_context
def bench(
    context: click.Context,
    model: Path | None,
    other: Path | None,
    options: BenchCommand,
    saved: Path | None,
    json: bool,
) -> None:
    """Time one model, or two alternately.

    MODEL and OTHER are ONNX model files.
    """
    if saved is not None:
        if _given(context) != {"saved"}:
            raise UsageError(f"--from {saved}: shows what is in the file: give nothing else")
        _show(saved)
        return
    if model is None:
        raise UsageError("nothing to time: name a MODEL, or a timing taken elsewhere with --from")
    from deployconv import api
    from deployconv.report import console, document

    models = [str(path) for path in (model, other) if path is not None]
    with progress(f"timing {' and '.join(models)}"):
        latencies = api.bench(model_from(model), other and model_from(other), **arguments(options))
    if json:
        document.write(document.of_timing(latencies, models))
    else:
        console.print_latency(console.stdout(), latencies, models)


def _given(context: click.Context) -> set[str]:
    """The names of the arguments that the command line gives."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _show(saved: Path) -> None:
    from deployconv.report import console
    from deployconv.report.lines import one_line
    from deployconv.report.read_back import read_timing

    timing = read_timing(saved)
    out = console.stdout()
    console.print_latency(out, timing.latencies, timing.models)
    lines = (f"{key}: {value}" for key, value in timing.conditions.items())
    console.print_lines(out, *map(one_line, lines), f"read from {saved}; nothing was timed here")
