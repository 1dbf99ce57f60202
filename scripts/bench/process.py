"""Run a function in a new process, and describe its errors.

The peak memory of a process never falls, and torch cannot be unloaded.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function``, of the top level of a module, in a new process and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def on_one_line(error: Exception) -> str:
    """The type and the message of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
