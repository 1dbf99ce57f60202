"""From arguments to an exit status: every failure becomes one line on standard error.

| status | meaning |
| --- | --- |
| 0 | done, and everything that was asked for was checked and holds |
| 1 | a check failed |
| 2 | the call or the model is at fault, or deployconv itself |
| 3 | a backend that was asked for is not available or cannot run the model |

130 and 141 are what a shell reports for a program ended by Ctrl-C and by a closed pipe.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from deployconv.cli.app import Session, app
from deployconv.cli.terminal import diagnose
from deployconv.errors import DeployconvError

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_FAULT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; ``arguments`` default to `sys.argv`."""
    for stream in (sys.stdout, sys.stderr):
        # A node name may hold any character; the terminal's encoding need not have it.
        getattr(stream, "reconfigure", _ignore)(errors="backslashreplace")
    session = Session()
    try:
        status = _run(sys.argv[1:] if arguments is None else list(arguments), session)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if session.debug:
            traceback.print_exc()
        return _report(error)
    return status


def _run(arguments: list[str], session: Session) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("deployconv", arguments, obj=session) as context:
            status = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return status if isinstance(status, int) else 0


def _report(error: BaseException) -> int:
    if isinstance(error, DeployconvError):
        diagnose("error", str(error))
        return error.status
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "deployconv"
        diagnose("error", f"{error.format_message().rstrip('.')}; see {command} --help")
        return _FAULT
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        diagnose("error", "interrupted")
        return _INTERRUPTED
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    diagnose("internal error", f"{what} (rerun as deployconv --debug ... for the traceback)")
    return _FAULT


def _silence_stdout() -> None:
    """Keep the interpreter from complaining when it flushes the closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ignore(**_: object) -> None:
    """Stand in for ``reconfigure`` on a stream that is not a text file."""
