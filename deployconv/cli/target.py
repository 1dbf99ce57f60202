"""``deployconv target``: the toolchains of targets, each in an environment of its own."""

from __future__ import annotations

import click

from deployconv.cli.terminal import diagnose, progress


@click.group(no_args_is_help=False)
def target() -> None:
    """Install, list and remove the toolchains of targets."""


@target.command
@click.argument("name", metavar="NAME")
def install(name: str) -> None:
    """Install a toolchain with pinned versions, in the user's data folder.

    NAME is a target, such as rk3588.
    """
    from deployconv import api

    with progress(f"installing the toolchain of {name}"):
        python = api.install_toolchain(name, on_wait=lambda: _waits(name))
    click.echo(f"installed in {python.parents[1]}")


@target.command("list")
def list_() -> None:
    """List the toolchains: which are installed, how large they are, and where."""
    from deployconv import api
    from deployconv.report import console, targets

    targets.print_toolchains(console.stdout(), api.list_toolchains())


@target.command
@click.argument("name", metavar="NAME")
def remove(name: str) -> None:
    """Remove the environment of a toolchain from the user's data folder.

    NAME is a target, or a name that deployconv target list shows.
    """
    from deployconv import api

    with progress(f"removing the toolchain of {name}"):
        home = api.remove_toolchain(name, on_wait=lambda: _waits(name))
    click.echo(f"removed {home}")


def _waits(name: str) -> None:
    diagnose("waiting", f"another process installs or removes the toolchain of {name}")
