"""The errors that deployconv raises; each has the exit status of the command line.

Every message says on one line what is wrong, where, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployconv.results import BatchReport, Rewriting


class DeployconvError(Exception):
    """Base class of every error that deployconv raises on purpose.

    ``status`` is the exit status of the command line.
    """

    status = 2


class UsageError(DeployconvError):
    """The call is at fault: a wrong shape, an unknown backend, a refused overwrite."""


class ModelError(DeployconvError):
    """The model is at fault: unreadable, invalid, missing external data, NaN weights."""


class CheckFailed(DeployconvError):
    """A check ran and did not hold: certificate, parity, a gate. Nothing was written.

    ``result`` has what was found until then; None if that is nothing.
    """

    status = 1

    def __init__(self, message: str, result: Rewriting | None = None) -> None:
        super().__init__(message)
        self.result = result


class BackendUnavailable(DeployconvError):
    """A backend is not installed, was replaced by another, or cannot run the model."""

    status = 3


class Terminated(BaseException):
    """A signal asked the program to end; its argument is the signal."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a signal ended the run of several models.

    ``report`` has the models that were done until then. ``number`` is that of the signal.
    """

    def __init__(self, report: BatchReport, number: int) -> None:
        super().__init__(f"ended by {report.interrupted}")
        self.report = report
        self.number = number
