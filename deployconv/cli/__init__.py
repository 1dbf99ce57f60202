"""The command line. ``run`` is the ``deployconv`` script; ``main`` returns its exit status.

Nothing here imports onnx, onnxruntime, NumPy or PyTorch at module level, so that the help appears
at once. A command imports what it needs when it runs.
"""

from __future__ import annotations

from deployconv.cli.app import main, run

__all__ = ["main", "run"]
