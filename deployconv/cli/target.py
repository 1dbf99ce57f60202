"""``deployconv target install``: the toolchain of a target, in an environment of its own."""

from __future__ import annotations

import click

from deployconv.cli.terminal import progress


@click.group(no_args_is_help=False)
def target() -> None:
    """Install the toolchain of a target."""


@target.command
@click.argument("name", metavar="NAME")
def install(name: str) -> None:
    """Install a toolchain with pinned versions, in the user's data folder.

    NAME is a target, such as rk3588.
    """
    from deployconv import api

    with progress(f"installing the toolchain of {name}"):
        python = api.install_toolchain(name)
    click.echo(f"installed in {python.parents[1]}")
