"""Compute capabilities of NVIDIA's GPUs, such as ``sm89``: variants of the target ``tensorrt``."""

from __future__ import annotations

import re

KNOWN = (
    *("sm50", "sm52", "sm53", "sm60", "sm61", "sm62", "sm70", "sm72", "sm75", "sm80", "sm86"),
    *("sm87", "sm88", "sm89", "sm90", "sm100", "sm101", "sm103", "sm110", "sm120", "sm121"),
)
"""Those that NVIDIA has GPUs of. A TensorRT that is installed may compile for newer ones."""
COMPILED = ("sm75", "sm86", "sm89", "sm120")
"""Those that the rules of ``tensorrt`` were held against."""

_FORM = re.compile(r"sm\d{2,3}")


def is_compute_capability(name: str) -> bool:
    """Whether ``name`` has the form of a compute capability, whether or not there is a GPU."""
    return _FORM.fullmatch(name) is not None
