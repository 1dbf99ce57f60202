"""A worker process that does what a test says, in place of one that loads a library."""

from __future__ import annotations

import sys

from deployconv.results import StageResult
from deployconv.runtimes.worker_events import Done, Stage, encode

PARSED = encode(Stage(StageResult("parse", "ok", 0.5)))
DONE = encode(Done({"engine_bytes": 7}))

PRELUDE = """
import os, signal, sys, time
line = sys.stdin.readline()
def say(data):
    os.write(1, data)
"""


def program(code: str) -> tuple[str, ...]:
    """A worker that reads its request and then does ``code``."""
    return sys.executable, "-c", PRELUDE + code
