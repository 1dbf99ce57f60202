"""The command line. ``main`` is the ``deployconv`` script.

Nothing here imports onnx, onnxruntime, NumPy or PyTorch at module level: the help must come at
once. A command imports what it needs when it runs.
"""

from __future__ import annotations

from deployconv.cli.entry import main

__all__ = ["main"]
