"""Arrays as files that two processes exchange: the values in a file, the rest in a JSON object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from deployconv.runtimes.base import Array

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def write_array(file: Path, name: str, array: Array) -> dict[str, Any]:
    """Write the values of ``array`` to ``file``; return its name, dtype, shape and file."""
    array = np.asarray(array, order="C")
    file.write_bytes(array.tobytes())
    return {"name": name, "dtype": array.dtype.name, "shape": array.shape, "file": str(file)}


def read_array(described: dict[str, Any]) -> Array:
    """Read the array that `write_array` described."""
    name = described["dtype"]
    dtype = _BFLOAT16 if name == "bfloat16" else np.dtype(name)
    values = np.frombuffer(Path(described["file"]).read_bytes(), dtype)
    return values.reshape(described["shape"]).copy()
