"""Start the worker process, limit its time and memory, and explain how it ended.

TensorRT is a large native library that reads untrusted files. Whatever it does there, a
crash, a hang, an endless log, becomes one `WorkerFailed` with a reason.

The two processes talk in lines of JSON. One request is one line on the worker's standard input.
The answer is any number of `Stage` lines and then exactly one `Done` or `Unavailable`.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, get_args

from deployconv.results import StageName, StageResult, StageStatus

STAGES: tuple[StageName, ...] = get_args(StageName)

Request = dict[str, Any]

_STATUSES = get_args(StageStatus)
_MODULE = "deployconv.runtimes.tensorrt.worker"
_POLL_SECONDS = 0.02
"""How often time and memory are checked; the worker may exceed its limit for as long."""
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 25
_KEPT_STDERR = 1 << 14
_QUOTED_STDERR = 300
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
    """This machine lacks a library or a GPU that the request needs; ``reason`` says which."""

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
    if result.name not in STAGES or result.status not in _STATUSES:
        raise ValueError(f"not a stage: {result.name!r} {result.status!r}")
    return result


class WorkerFailed(Exception):
    """The worker crashed, was stopped, or did not answer in the protocol."""


class RequirementMissing(Exception):
    """This machine lacks a library or a GPU that a request needs; the message says which."""


@dataclass(frozen=True)
class Limits:
    """What one worker may use: ``seconds`` for one request, ``memory`` bytes resident."""

    seconds: float = 600.0
    memory: int = 0
    """0 means three quarters of this machine's memory."""

    @property
    def memory_bytes(self) -> int:
        """The limit in bytes."""
        return self.memory or 3 * _physical_memory() // 4


_DEFAULT_LIMITS = Limits()


class Worker:
    """One worker process; it is started by the constructor and ends with the ``with`` block.

    ``command`` replaces the program that is run; tests use it to run ones that misbehave.
    """

    def __init__(
        self, limits: Limits = _DEFAULT_LIMITS, command: Sequence[str] | None = None
    ) -> None:
        self._limits = limits
        self._closed = False
        self._answering = True
        self._stderr = b""
        self._lines: list[bytes] = []
        self._partial = bytearray()
        # The worker imports from the same folders as this process. Its own session keeps a
        # terminal's Ctrl-C for deployconv, which then ends the worker.
        self._process = subprocess.Popen(
            command or (sys.executable, "-m", _MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        for stream in (self._stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the worker and whatever it started; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for stream in (self._process.stdin, self._stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def ask(
        self, request: Request, on_stage: Callable[[StageResult], None] | None = None
    ) -> dict[str, Any]:
        """Send ``request`` and return the value of its answer.

        Args:
            request: an action of `worker.Answers`, with its arguments.
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

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _send(self, request: Request) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def _next(self, deadline: float) -> Event:
        while not self._lines:
            if time.monotonic() > deadline:
                raise self._stopped(f"gave no answer within {self._limits.seconds:g} s")
            memory = _resident_bytes(self._process.pid)
            if memory > self._limits.memory_bytes:
                raise self._stopped(
                    f"used {memory >> 20} MiB of memory where {self._limits.memory_bytes >> 20}"
                    " MiB are allowed"
                )
            self._read(_POLL_SECONDS)
            if not self._answering:
                raise self._died()
        try:
            return decode(self._lines.pop(0))
        except ValueError as error:
            raise self._stopped(f"answered what is no answer ({error})") from error

    def _read(self, seconds: float) -> bool:
        """Read what arrives within ``seconds``. False if nothing does."""
        events = self._selector.select(seconds)
        for key, _ in events:
            chunk = os.read(key.fd, _CHUNK)
            if not chunk:
                self._selector.unregister(key.fileobj)
                if key.fileobj is self._stdout:
                    self._answering = False
            elif key.fileobj is self._stdout:
                self._partial += chunk
                if b"\n" in chunk:
                    *lines, self._partial = self._partial.split(b"\n")
                    self._lines += map(bytes, lines)
                if len(self._partial) > _LONGEST_LINE:
                    raise self._stopped("answered without end")
            else:
                self._stderr = (self._stderr + chunk)[-_KEPT_STDERR:]
        return bool(events)

    def _stopped(self, what: str) -> WorkerFailed:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return WorkerFailed(f"the TensorRT worker {what} and was stopped{self._last_words()}")

    def _died(self) -> WorkerFailed:
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return self._stopped("closed its answers")
        while self._selector.get_map() and self._read(0):
            pass
        if status < 0:
            how = f"was killed by {_signal_name(-status)}"
            if -status == signal.SIGKILL:
                how += ", as a system does when memory runs out"
        else:
            how = f"ended with status {status} before it answered"
        return WorkerFailed(f"the TensorRT worker {how}{self._last_words()}")

    def _last_words(self) -> str:
        lines = self._stderr.decode(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"; it last said: {words[:_QUOTED_STDERR]}" if words else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of ``pid``; 0 if it has ended or the system does not tell."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
