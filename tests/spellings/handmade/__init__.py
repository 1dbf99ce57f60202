"""Spellings that today's exporters do not write: older opsets, other tools, other operators.

Each is text for onnx.parser, and what it must compute in terms of `oracle`.
"""

from __future__ import annotations

from tests.spellings.handmade import (
    masked,
    nearest_resize,
    one_hot,
    pixel_shuffle,
    reshaped,
    scattered,
)

GRAPHS = (
    *scattered.GRAPHS,
    *masked.GRAPHS,
    *reshaped.GRAPHS,
    *one_hot.GRAPHS,
    *nearest_resize.GRAPHS,
    *pixel_shuffle.GRAPHS,
)

__all__ = ["GRAPHS"]
