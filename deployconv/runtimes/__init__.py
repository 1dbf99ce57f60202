"""Runtimes that can run a model. `registry` lists them and imports none before it is asked for."""

from __future__ import annotations

from deployconv.runtimes.registry import (
    RUNTIMES,
    Runtime,
    get_backend,
    get_runtime,
    names_with,
)

__all__ = [
    "RUNTIMES",
    "Runtime",
    "get_backend",
    "get_runtime",
    "names_with",
]
