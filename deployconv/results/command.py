"""What a whole command found, for one model or for many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from deployconv.results.build import BuildReport, Compilation
from deployconv.results.details import Details
from deployconv.results.latency import Latency
from deployconv.results.model import ModelInfo, OutputFile
from deployconv.results.parity import Parity
from deployconv.results.shown import Displayed
from deployconv.results.site import SiteReport
from deployconv.results.target import TargetModel

if TYPE_CHECKING:
    import onnx

Step = Literal["certificate", "parity", "latency"]

Verdict = Literal["passed", "failed", "error", "not-run"]


@dataclass(frozen=True)
class NotRun:
    """A step that was not run, and why. It never counts as passed."""

    step: Step
    reason: str


@dataclass(frozen=True)
class Inspection(Displayed):
    """What `inspect` found: every upsampling layer, as ``--policy all`` would leave it."""

    source: ModelInfo
    sites: tuple[SiteReport, ...]
    target: str | None = None
    """``dla`` if the sites were also checked for what keeps them off the DLA."""
    note: str | None = None
    """The versions of the target that this is true of, and the document that says so."""
    targets: tuple[TargetModel, ...] = ()
    """The targets that were named, and what the rewritten model would have left for each."""


@dataclass(frozen=True)
class Rewriting(Displayed):
    """What `rewrite` did: the sites, the proof, the timing, and the file if one was written."""

    source: ModelInfo
    sites: tuple[SiteReport, ...]
    model: onnx.ModelProto | None = field(default=None, repr=False, compare=False)
    """The rewritten model; its external tensors, if any, refer to files beside ``output``."""
    parity: Parity | None = None
    latency: Latency | None = None
    compiled: Compilation | None = None
    """Both models compiled for the targets that were asked for."""
    output: OutputFile | None = None
    not_run: tuple[NotRun, ...] = ()
    warnings: tuple[str, ...] = ()
    changed: bool = True
    """False if the model that was written is a copy of the original."""
    details: Details | None = None
    """None unless a report was asked for."""
    targets: tuple[TargetModel, ...] = ()
    """The targets that were named, and what is left in the model that they do not take."""


@dataclass(frozen=True)
class ModelRun:
    """What became of one of several models of a call.

    ``passed`` if everything that was asked for was done and holds, ``failed`` if a check does
    not hold, ``error`` if the call or the model is at fault, ``not-run`` if a backend is missing.
    """

    path: str
    status: Verdict
    seconds: float
    result: Inspection | Rewriting | BuildReport | None = None
    """None if the model ended with an error. A `Rewriting` here is without its ``model``."""
    message: str | None = None

    @property
    def rewriting(self) -> Rewriting | None:
        """The result of `rewrite` or `check`."""
        return self.result if isinstance(self.result, Rewriting) else None

    @property
    def sites(self) -> tuple[SiteReport, ...] | None:
        """The upsampling layers that were found; None if none were looked for."""
        return None if self.result is None else getattr(self.result, "sites", None)


@dataclass(frozen=True)
class BatchReport:
    """All models of one call, in the order in which they were found."""

    models: tuple[ModelRun, ...] = ()
    command: str = "check"
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of the call that are not the defaults."""
    interrupted: str | None = None
    """The name of the signal that ended the call early, such as ``SIGINT``."""
    remaining: tuple[str, ...] = ()
    """The models that an interrupted call did not get to."""
    warnings: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """1 if a check failed, else 2 if a model is broken, else 3 if one could not be run."""
        statuses = {model.status for model in self.models}
        for status, code in (("failed", 1), ("error", 2), ("not-run", 3)):
            if status in statuses:
                return code
        return 0


ModelCheck = ModelRun
"""The name of a `ModelRun` of `check`."""

CheckReport = BatchReport
"""The name of a `BatchReport` of `check`."""
