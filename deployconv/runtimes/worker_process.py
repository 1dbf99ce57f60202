"""Run a library or a program in a process of its own, with limits, and explain how it ended.

Runtimes and compilers are large native libraries that read untrusted files. Whatever one of them
does in its own process, a crash, a hang, an exit, endless output, becomes one `WorkerFailed` with
a reason of one line.

- `Worker` answers requests, one after another. Its program calls `worker_main.serve`. The two
  processes talk in lines of JSON: one request is one line on the worker's standard input; the
  answer is any number of `Stage` lines and then exactly one `Done` or `Unavailable`.
- `run_program` runs a command line to its end, such as a vendor's compiler.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, get_args

from deployconv.results import StageName, StageResult, StageStatus

Request = dict[str, Any]
"""What a worker is asked: ``action`` names it, the other keys are its arguments."""

_STAGES = get_args(StageName)
_STATUSES = get_args(StageStatus)
_POLL_SECONDS = 0.02
"""How often time and memory are checked; the process may exceed its limit for as long."""
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 25
_KEPT = 1 << 14
"""How many bytes of the end of an output are kept."""
_QUOTED = 300
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Stage:
    """A stage has ended; sent at once, so that it is known even if the next one crashes."""

    result: StageResult


@dataclass(frozen=True)
class Done:
    """The request is answered with ``value``."""

    value: dict[str, Any]


@dataclass(frozen=True)
class Unavailable:
    """This machine lacks a library or a device that the request needs; ``reason`` says which."""

    reason: str


Event = Stage | Done | Unavailable


def encode(event: Event) -> bytes:
    """Write ``event`` as one line."""
    return json.dumps({type(event).__name__: asdict(event)}).encode() + b"\n"


def decode(line: bytes) -> Event:
    """Read the event in ``line``. Raises ValueError for what `encode` does not write."""
    try:
        ((kind, fields),) = json.loads(line).items()
        if kind == Stage.__name__:
            return Stage(_stage(fields["result"]))
        if kind == Done.__name__ and isinstance(fields["value"], dict):
            return Done(fields["value"])
        if kind == Unavailable.__name__:
            return Unavailable(str(fields["reason"]))
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an event: {error}") from error
    raise ValueError(f"not an event: {kind!r}")


def _stage(fields: dict[str, Any]) -> StageResult:
    result = StageResult(**fields)
    if result.name not in _STAGES or result.status not in _STATUSES:
        raise ValueError(f"not a stage: {result.name!r} {result.status!r}")
    return result


class WorkerFailed(Exception):
    """The process crashed, was stopped, or did not answer in the protocol."""


class RequirementMissing(Exception):
    """This machine lacks a library or a device that a request needs; the message says which."""


@dataclass(frozen=True)
class Limits:
    """What one process, with the processes that it starts, may use.

    Attributes:
        seconds: for one request, or for a whole program.
        memory: bytes resident; 0 means three quarters of this machine's memory.
        output: bytes that it may write to standard error; a program also to standard output.
    """

    seconds: float = 600.0
    memory: int = 0
    output: int = 1 << 28

    @property
    def memory_bytes(self) -> int:
        """The limit of memory in bytes."""
        return self.memory or 3 * _physical_memory() // 4


DEFAULT_LIMITS = Limits()


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs ``module`` with this Python."""
    return (sys.executable, "-m", module, *arguments)


class _LimitedProcess(ABC):
    """A process that is killed, with all that it started, at a limit or at the end of ``with``.

    ``what`` is what messages call it.
    """

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        limits: Limits,
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._what = what
        self._limits = limits
        self._closed = False
        self._written = 0
        self._stderr = b""
        if environment is None:  # imports from the same folders as this process
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            # Its own session keeps a terminal's Ctrl-C for deployconv, which then ends it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerFailed(f"{what} cannot be started: {error}") from error
        self._selector = selectors.DefaultSelector()
        for stream in (self._stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)

    def close(self) -> None:
        """Kill the process and whatever it started; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._kill()
        self._process.wait()
        self._selector.close()
        for stream in (self._process.stdin, self._stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    @abstractmethod
    def _take(self, chunk: bytes) -> None:
        """Use what the process wrote to standard output."""

    def _check_limits(self, deadline: float, what: str) -> None:
        """Raise WorkerFailed if a limit is exceeded; ``what`` it does is not done in time."""
        if time.monotonic() > deadline:
            raise self._stopped(f"{what} within {self._limits.seconds:g} s")
        memory = _resident_bytes(self._process.pid)
        if memory > self._limits.memory_bytes:
            raise self._stopped(
                f"used {memory >> 20} MiB of memory where {self._limits.memory_bytes >> 20}"
                " MiB are allowed"
            )
        if self._written > self._limits.output:
            raise self._stopped(f"wrote more than {self._limits.output >> 20} MiB of messages")

    def _read(self, seconds: float) -> bool:
        """Read what arrives within ``seconds``. False if nothing does."""
        events = self._selector.select(seconds)
        for key, _ in events:
            chunk = os.read(key.fd, _CHUNK)
            if not chunk:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._stdout:
                self._take(chunk)
            else:
                self._written += len(chunk)
                self._stderr = (self._stderr + chunk)[-_KEPT:]
        return bool(events)

    def _answers(self) -> bool:
        """Whether standard output is still open."""
        return self._stdout in {key.fileobj for key in self._selector.get_map().values()}

    def _stopped(self, how: str) -> WorkerFailed:
        self._kill()
        return WorkerFailed(f"{self._what} {how} and was stopped{self._last_words()}")

    def _read_the_rest(self) -> None:
        while self._written <= self._limits.output and self._selector.get_map() and self._read(0):
            pass

    def _ended(self, status: int, before: str) -> WorkerFailed:
        """Explain that the process ended with ``status``; ``before`` what it should have done."""
        self._read_the_rest()
        if status < 0:
            how = f"was killed by {_signal_name(-status)}"
            if -status == signal.SIGKILL:
                how += ", as a system does when memory runs out"
        else:
            how = f"ended with status {status}{before}"
        return WorkerFailed(f"{self._what} {how}{self._last_words()}")

    def _last_words(self) -> str:
        words = last_line(self._stderr)
        return f"; it last said: {words}" if words else ""


class Worker(_LimitedProcess):
    """A process that answers requests; it ends with the ``with`` block, or with `close`.

    Args:
        name: of the library, as messages call it: ``the NAME worker ...``.
        command: its program, which calls `worker_main.serve`; see `python_module`.
        limits: what it may use for one request.
        environment: its environment variables; default: those of this process, and a
            ``PYTHONPATH`` that has it import from the same folders. Give another one to a Python
            that is not this one.

    Raises WorkerFailed if the command cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        limits: Limits = DEFAULT_LIMITS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"the {name} worker", command, limits, environment=environment)
        self._lines: list[bytes] = []
        self._partial = bytearray()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, request: Request, on_stage: Callable[[StageResult], None] | None = None
    ) -> dict[str, Any]:
        """Send ``request`` and return the value of its answer.

        Args:
            request: an action of the worker's program, with its arguments.
            on_stage: called with each stage as soon as it ends.

        Raises:
            WorkerFailed: no answer comes, it is garbage, or a limit is exceeded.
            RequirementMissing: the request cannot be answered on this machine.
        """
        self._send(request)
        deadline = time.monotonic() + self._limits.seconds
        while True:
            event = self._next(deadline)
            if isinstance(event, Done):
                return event.value
            if isinstance(event, Unavailable):
                raise RequirementMissing(event.reason)
            if on_stage is not None:
                on_stage(event.result)

    def last_words(self) -> str:
        """The last line that the library has written since the last request; empty if none."""
        self._read_the_rest()
        return last_line(self._stderr)

    def _send(self, request: Request) -> None:
        assert self._process.stdin is not None
        self._read_the_rest()
        self._written, self._stderr = 0, b""
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def _next(self, deadline: float) -> Event:
        while not self._lines:
            self._check_limits(deadline, "gave no answer")
            self._read(_POLL_SECONDS)
            if not self._lines and not self._answers():
                raise self._died()
        try:
            return decode(self._lines.pop(0))
        except ValueError as error:
            raise self._stopped(f"answered what is no answer ({error})") from error

    def _take(self, chunk: bytes) -> None:
        self._partial += chunk
        if b"\n" in chunk:
            *lines, self._partial = self._partial.split(b"\n")
            self._lines += map(bytes, lines)
        if len(self._partial) > _LONGEST_LINE:
            raise self._stopped("answered without end")

    def _died(self) -> WorkerFailed:
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return self._stopped("closed its answers")
        return self._ended(status, " before it answered")


@dataclass(frozen=True)
class Finished:
    """How a program ended: its status, and the end of what it wrote (16 KiB of each)."""

    status: int
    stdout: str
    stderr: str


class _Program(_LimitedProcess):
    """A process that runs to its end; it is given no input."""

    _output = b""

    def finish(self) -> Finished:
        """Wait for the end. Raises WorkerFailed at a limit, or if a signal kills the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        deadline = time.monotonic() + self._limits.seconds
        while self._process.poll() is None:
            self._check_limits(deadline, "did not finish")
            self._read(_POLL_SECONDS)
        self._kill()  # what it started and left behind
        if self._process.returncode < 0:
            raise self._ended(self._process.returncode, "")
        self._read_the_rest()
        stdout, stderr = (text.decode(errors="replace") for text in (self._output, self._stderr))
        return Finished(self._process.returncode, stdout, stderr)

    def _take(self, chunk: bytes) -> None:
        self._written += len(chunk)
        self._output = (self._output + chunk)[-_KEPT:]


def run_program(
    name: str,
    command: Sequence[str],
    limits: Limits = DEFAULT_LIMITS,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run ``command`` to its end, with no input, and return its status and last output.

    Args:
        name: what messages call the program.
        command: the program and its arguments; no shell is involved.
        limits: what it may use, with all that it starts.
        folder: where it runs; default: the current folder.
        environment: its environment variables; default: as for `Worker`.

    Raises WorkerFailed if it cannot be started, exceeds a limit or is killed by a signal. A status
    other than 0 is returned: what it means depends on the program.
    """
    program = _Program(name, command, limits, folder=folder, environment=environment)
    try:
        return program.finish()
    finally:
        program.close()


def last_line(output: bytes | str) -> str:
    """The last line of ``output`` that is not empty, shortened to 300 characters."""
    text = output if isinstance(output, str) else output.decode(errors="replace")
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_QUOTED]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of ``pid`` and the processes that it started.

    Counts 0 for one that has ended, or if the system does not tell.
    """
    process = Path("/proc", str(pid))
    try:
        pages = int((process / "statm").read_text(encoding="ascii").split()[1])
        started = [
            int(child)
            for children in process.glob("task/*/children")
            for child in children.read_text(encoding="ascii").split()
        ]
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(_resident_bytes, started))
