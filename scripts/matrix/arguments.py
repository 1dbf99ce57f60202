"""What the scripts that run toolchains have in common on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatch
from pathlib import Path

from deployconv.errors import BackendUnavailable, DeployconvError, UsageError
from deployconv.runtimes.toolchains.catalogue import Toolchain, get_toolchain
from deployconv.runtimes.toolchains.environments import installed

from .forms import FORMS
from .record import RECORDS, RESIZE_RECORDS
from .resizes import RESIZES


def new_parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose help is the docstring ``doc`` of a script."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_forms(parser: argparse.ArgumentParser) -> None:
    """Add the option whose patterns `chosen_names` takes."""
    parser.add_argument("--forms", nargs="+", default=["*"], help="patterns of names")


def add_layers(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_layers` takes."""
    add_forms(parser)
    parser.add_argument("--resizes", action="store_true", help="run the Resizes")


def chosen_layers(chosen: argparse.Namespace) -> tuple[list[str], Path]:
    """The names of the forms or Resizes to run, and the folder of their records."""
    layers, folder = (RESIZES, RESIZE_RECORDS) if chosen.resizes else (FORMS, RECORDS)
    return chosen_names(chosen.forms, layers), folder


def chosen_names(patterns: Sequence[str], layers: Collection[str]) -> list[str]:
    """The names of ``layers`` that a pattern matches. Raises UsageError if one matches none."""
    for glob in patterns:
        if not any(fnmatch(name, glob) for name in layers):
            raise UsageError(f"--forms {glob}: no such layer; there are {', '.join(layers)}")
    return [name for name in layers if any(fnmatch(name, glob) for glob in patterns)]


def installed_toolchain(target: str) -> tuple[Toolchain, Path]:
    """The toolchain of ``target``, and the Python of its environment.

    Raises UsageError if there is none for it, and BackendUnavailable if it is not installed.
    """
    toolchain = get_toolchain(target)
    if target not in toolchain.targets:
        raise UsageError(f"{target} is a toolchain: name one of {', '.join(toolchain.targets)}")
    python = installed(toolchain)
    if python is None:
        raise BackendUnavailable(f"{target}: not installed: deployconv target install {target}")
    return toolchain, python


def status_of(main: Callable[[], int]) -> int:
    """Run a script; of an error that is no bug, print one line and return its status."""
    try:
        return main()
    except DeployconvError as error:
        print(error, file=sys.stderr)
        return error.status
