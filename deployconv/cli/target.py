"""``deployconv target install``: the toolchain of a target, in an environment of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from deployconv.cli.terminal import progress

target = typer.Typer(
    help="Install the toolchain of a target.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@target.callback()
def root() -> None:
    """Install the toolchain of a target."""


@target.command()
def install(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A target, such as rk3588.")],
) -> None:
    """Install the toolchain of a target with pinned versions, in the user's data folder."""
    from deployconv import api

    with progress(f"installing the toolchain of {name}"):
        python = api.install_toolchain(name)
    typer.echo(f"installed in {python.parents[1]}")
