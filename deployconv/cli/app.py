"""The commands, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from deployconv._version import __version__
from deployconv.cli.bench import bench
from deployconv.cli.build import build
from deployconv.cli.check import check
from deployconv.cli.inspect import inspect
from deployconv.cli.rewrite import rewrite
from deployconv.cli.verify import verify


@dataclass
class Session:
    """What the global options of one call say."""

    debug: bool = False


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"deployconv {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Rewrite the upsampling layers of ONNX models as Conv + DepthToSpace, and prove it exact."""
    del version
    context.ensure_object(Session).debug = debug


for command in (inspect, rewrite, verify, bench, build, check):
    app.command()(command)
