"""``python -m deployconv``: run the command line without the installed script."""

from __future__ import annotations

from deployconv.cli import run

if __name__ == "__main__":
    run()
