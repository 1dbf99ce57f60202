"""The command line. ``run`` is the ``deployconv`` script; ``main`` returns its exit status.

Nothing here imports onnx, onnxruntime, NumPy or PyTorch at module level, so that the help appears
at once. A command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main", "run"]

_INTERRUPTED = 130


def run() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    try:
        from deployconv.cli import app
    except KeyboardInterrupt:
        print("deployconv: error: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    app.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; ``arguments`` default to `sys.argv`."""
    from deployconv.cli import app

    return app.main(arguments)
