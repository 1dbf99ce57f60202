"""Run a library in a process of its own, with limits, and explain how it ended.

Runtimes and compilers are large native libraries that read untrusted files. Whatever one of them
does in its own process, a crash, a hang, an exit, endless output, becomes one `WorkerFailed` with
a reason of one line.

A `Worker` is one such process. It answers requests, one after another, in the lines that
`worker_events` describes. Its program calls `worker_main.serve`. A `RestartingWorker` starts
another one after a failure.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deployconv.results import StageResult
from deployconv.runtimes.machine import physical_memory
from deployconv.runtimes.worker_events import Done, Event, Request, Unavailable, decode

_POLL_SECONDS = 0.02
"""How often time and memory are checked; the process may exceed its limit for as long."""
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 25
_KEPT = 1 << 14
"""How many bytes of the end of the messages are kept."""
_QUOTED = 300
_GRACE_SECONDS = 5.0


class WorkerFailed(Exception):
    """The process crashed, was stopped, or did not answer in the protocol."""


class RequirementMissing(Exception):
    """This machine lacks a library or a device that a request needs; the message says which."""


@dataclass(frozen=True)
class Limits:
    """What one process, with the processes that it starts, may use.

    Attributes:
        seconds: for one request.
        memory: bytes resident; 0 means three quarters of this machine's memory, if that is known.
        output: bytes that it may write to standard error for one request.
    """

    seconds: float = 600.0
    memory: int = 0
    output: int = 1 << 28

    @property
    def memory_bytes(self) -> int:
        """The limit of memory in bytes."""
        return self.memory or 3 * (physical_memory() or sys.maxsize) // 4


DEFAULT_LIMITS = Limits()


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs ``module`` with this Python."""
    return (sys.executable, "-m", module, *arguments)


def python_environment() -> dict[str, str]:
    """The variables of this process, for a Python that imports from the same folders as this."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Worker:
    """A process that answers requests; it ends with the ``with`` block, or with `close`.

    All that it has started ends with it.

    Args:
        name: of the library, as messages call it: ``the NAME worker ...``.
        command: its program, which calls `worker_main.serve`; see `python_module`.
        limits: what it may use for one request.
        environment: its environment variables; default: `python_environment`, which suits no
            other Python than this one.
        folder: its working folder; default: that of this process.

    Raises WorkerFailed if the command cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        limits: Limits = DEFAULT_LIMITS,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._what = f"the {name} worker"
        self._limits = limits
        self._closed = False
        self._written = 0
        self._stderr = b""
        self._lines: list[bytes] = []
        self._partial = bytearray()
        try:
            # Its own session keeps a terminal's Ctrl-C for deployconv, which then ends it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=python_environment() if environment is None else environment,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerFailed(f"{self._what} cannot be started: {error}") from error
        self._selector = selectors.DefaultSelector()
        for stream in (self._stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)

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
        return self._last_line()

    def _last_line(self) -> str:
        lines = self._stderr.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_QUOTED]

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
        """Wait for the next line of the answer."""
        while not self._lines:
            self._check_limits(deadline)
            self._read(_POLL_SECONDS)
            if not self._lines and not self._answers():
                raise self._died()
        try:
            return decode(self._lines.pop(0))
        except ValueError as error:
            raise self._stopped(f"answered what is no answer ({error})") from error

    def _check_limits(self, deadline: float) -> None:
        """Raise WorkerFailed if a limit is exceeded."""
        if time.monotonic() > deadline:
            raise self._stopped(f"gave no answer within {self._limits.seconds:g} s")
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

    def _take(self, chunk: bytes) -> None:
        """Split what was written to standard output into lines."""
        self._partial += chunk
        if b"\n" in chunk:
            *lines, self._partial = self._partial.split(b"\n")
            self._lines += map(bytes, lines)
        if len(self._partial) > _LONGEST_LINE:
            raise self._stopped("answered without end")

    def _read_the_rest(self) -> None:
        """Read what has arrived by now."""
        while self._written <= self._limits.output and self._selector.get_map() and self._read(0):
            pass

    def _answers(self) -> bool:
        """Whether standard output is still open."""
        return self._stdout in {key.fileobj for key in self._selector.get_map().values()}

    def _stopped(self, how: str) -> WorkerFailed:
        """Kill the process; the error says ``how`` it misbehaved."""
        self._kill()
        return self._failed(f"{how} and was stopped")

    def _died(self) -> WorkerFailed:
        """Explain why a process has ended that was to answer."""
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return self._stopped("closed its answers")
        self._read_the_rest()
        if status >= 0:
            return self._failed(f"ended with status {status} before it answered")
        killer = ", as a system does when memory runs out" if -status == signal.SIGKILL else ""
        return self._failed(f"was killed by {_signal_name(-status)}{killer}")

    def _failed(self, how: str) -> WorkerFailed:
        words = self._last_line()
        return WorkerFailed(f"{self._what} {how}" + (f"; it last said: {words}" if words else ""))


class RestartingWorker:
    """A worker that starts with its first request, and anew with the next one after a failure.

    Args:
        start: starts the process.

    Attributes:
        failures: how many processes have failed. The next one knows nothing of earlier requests.
    """

    def __init__(self, start: Callable[[], Worker]) -> None:
        self._start = start
        self._worker: Worker | None = None
        self.failures = 0

    def __enter__(self) -> RestartingWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, request: Request, on_stage: Callable[[StageResult], None] | None = None
    ) -> dict[str, Any]:
        """Send ``request`` and return the value of its answer; starts a process if none runs."""
        try:
            if self._worker is None:
                self._worker = self._start()
            return self._worker.ask(request, on_stage)
        except RequirementMissing:
            raise
        except BaseException:
            # After Ctrl-C, too: the answer would be taken for that of a later request.
            self.close()
            self.failures += 1
            raise

    def last_words(self) -> str:
        """The last line that the library has written since the last request; empty if none."""
        return "" if self._worker is None else self._worker.last_words()

    def close(self) -> None:
        """Kill the process and whatever it started; a later request starts another one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
