"""The command line: all commands, exit statuses, and one line on standard error per failure.

| status | meaning |
| --- | --- |
| 0 | done, and everything that was asked for was checked and holds |
| 1 | a check failed |
| 2 | the call or the model is at fault, or deployconv itself |
| 3 | a backend that was asked for is not available or cannot run the model |

129, 130, 141 and 143 are what a shell reports for a program ended by a closed terminal (SIGHUP),
by Ctrl-C, by a closed pipe and by SIGTERM.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

import click

from deployconv._version import __version__
from deployconv.cli.bench import bench
from deployconv.cli.build import build
from deployconv.cli.check import check
from deployconv.cli.completion import completion
from deployconv.cli.diff import diff
from deployconv.cli.doctor import doctor
from deployconv.cli.explain import explain
from deployconv.cli.inspect import inspect
from deployconv.cli.report import report
from deployconv.cli.rewrite import rewrite
from deployconv.cli.target import target
from deployconv.cli.targets import targets
from deployconv.cli.terminal import diagnose
from deployconv.cli.verify import verify
from deployconv.errors import DeployconvError, Interrupted, Terminated, UsageError

_SIGNALLED = 128
"""Plus the number of the signal that ended the program."""
_BROKEN_PIPE = 141
_FAULT = 2
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a write fails with; that of a file says which file it is."""
_NEW_OBJECTS = 100_000
"""How many more objects there are when Python next looks for garbage."""


@dataclass
class Session:
    """The options of one call that come before the name of the command."""

    debug: bool = False


class _Commands(click.Group):
    """The commands; the help lists them in this order."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> object:
        """Run the command; an error in how it was called names this command."""
        try:
            return super().invoke(context)
        except click.UsageError as error:
            name = context.invoked_subcommand
            if error.ctx is None and name is not None and name in self.commands:
                error.ctx = click.Context(self.commands[name], context, name)
            raise


def _print_version(context: click.Context) -> None:
    """Print the version, and below it those of the libraries that run models."""
    from deployconv.runtimes.installed import runtime_versions

    click.echo(f"deployconv {__version__}")
    for name, version in runtime_versions().items():
        click.echo(f"{name} {version}")
    context.exit()


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, option, asked: _print_version(context) if asked else None,
    help="Show the versions of deployconv and of the runtimes, and exit.",
)
@click.pass_obj
def app(session: Session, debug: bool) -> None:
    """Rewrite the upsampling layers of ONNX models as Conv + DepthToSpace, and prove it exact."""
    session.debug = debug


_COMMANDS = (
    *(inspect, rewrite, verify, bench, build, check, targets, target, report),
    *(diff, explain, doctor, completion),
)
for command in _COMMANDS:
    app.add_command(command)


def run() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    # Nearly all objects of a command live until it ends. Looking for garbage among them, while
    # they are made and once more at the end, takes as long as the rewrite of a small model.
    gc.set_threshold(_NEW_OBJECTS)
    try:
        _end_by_exception("SIGTERM", "SIGHUP")
        status = main()
        gc.freeze()
    except (KeyboardInterrupt, Terminated) as error:  # a moment before or after the command
        status = _report(error)
    sys.exit(status)


def _end_by_exception(*names: str) -> None:
    """Let these signals raise `Terminated`, as Ctrl-C raises KeyboardInterrupt.

    What the program has begun is then cleaned up. A signal that is ignored, as under ``nohup``,
    stays ignored.
    """

    def end(number: int, frame: object) -> NoReturn:
        del frame
        raise Terminated(signal.Signals(number))

    for name in names:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; ``arguments`` default to `sys.argv`."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # The terminal's encoding may lack a character of a node name.
            stream.reconfigure(errors="backslashreplace")
    session = Session()
    try:
        status = _run(sys.argv[1:] if arguments is None else list(arguments), session)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    except OSError as error:
        if session.debug:
            traceback.print_exc()
        if error.filename is not None or error.errno not in _NO_ROOM:
            return _report(error)
        _silence_stdout()
        return _report(_unwritable(error))
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if session.debug:
            traceback.print_exc()
        return _report(error)
    return status


def _open_closed_streams() -> None:
    """Give the process its output streams, to nowhere, if it was started without (``>&-``)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115


def _run(arguments: list[str], session: Session) -> int:
    """Run the command that the arguments name."""
    if "_DEPLOYCONV_COMPLETE" in os.environ:  # a shell asks how a word could go on
        app.main(arguments, "deployconv", complete_var="_DEPLOYCONV_COMPLETE")
    try:
        with app.make_context("deployconv", arguments, obj=session) as context:
            status = app.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return status if isinstance(status, int) else 0


def _report(error: BaseException) -> int:
    """Print one line about the error and return its exit status."""
    if isinstance(error, DeployconvError):
        diagnose("error", str(error))
        return error.status
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "deployconv"
        diagnose("error", f"{error.format_message().rstrip('.')}; see {command} --help")
        return _FAULT
    if isinstance(error, Interrupted) and error.number != signal.SIGINT:
        error = Terminated(signal.Signals(error.number))
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        diagnose("error", "interrupted")
        return _SIGNALLED + signal.SIGINT
    if isinstance(error, Terminated):
        (number,) = error.args
        diagnose("error", f"ended by {number.name}")
        return int(_SIGNALLED + number)
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    diagnose("internal error", f"{what} (rerun as deployconv --debug ... for the traceback)")
    return _FAULT


def _unwritable(error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(f"standard output cannot be written ({reason}): write to another place")


def _silence_stdout() -> None:
    """Redirect standard output, as the interpreter reports a failed write when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
