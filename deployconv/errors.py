"""One hierarchy of errors; each carries the exit status that the command line ends with.

Every message says what is wrong, where, and what to do, on one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployconv.results import Rewriting


class DeployconvError(Exception):
    """Base of every error that deployconv raises on purpose.

    ``status`` is the exit status of the command line (see the README).
    """

    status = 2


class UsageError(DeployconvError):
    """The call is at fault: a wrong shape, an unknown backend, a refused overwrite."""


class ModelError(DeployconvError):
    """The model is at fault: unreadable, invalid, missing external data, NaN weights."""


class CheckFailed(DeployconvError):
    """A check ran and did not hold: certificate, parity, a gate. Nothing was written.

    ``result`` is what was found (a `results.Rewriting`), so that it can still be shown.
    """

    status = 1

    def __init__(self, message: str, result: Rewriting | None = None) -> None:
        super().__init__(message)
        self.result = result


class BackendUnavailable(DeployconvError):
    """A backend is not installed, was replaced by another, or cannot run the model."""

    status = 3
