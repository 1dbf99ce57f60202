"""What TensorRT or another toolchain makes of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deployconv.results.model import ModelInfo, OutputFile
from deployconv.results.parity import OutputParity

StageName = Literal["check", "parse", "build", "deserialize", "run", "profile"]

StageStatus = Literal["ok", "failed", "not-run"]


@dataclass(frozen=True)
class StageResult:
    """One stage on the way from a model to its execution, in the runtime's own words.

    ``reason`` says why a stage failed or was not run; ``node`` and ``operator`` name the ONNX
    node if the runtime names one; ``seconds`` is None for a stage that was not run.
    """

    name: StageName
    status: StageStatus
    seconds: float | None = None
    reason: str | None = None
    node: str | None = None
    operator: str | None = None


@dataclass(frozen=True)
class Kernel:
    """One kernel of a compiled engine, as the build log lists it."""

    name: str
    kind: str
    """For example ``kgen``, ``deconv``, ``correlation``, ``runtime_fusion``."""
    inputs: tuple[str, ...]
    """Element types as TensorRT calls them: ``Float``, ``Half``, ``Int8``, ..."""
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    """ONNX nodes that it computes, as far as the log says."""


@dataclass(frozen=True)
class PaddedLayer:
    """A convolution or deconvolution as the importer read it from the ONNX node ``node``."""

    node: str
    kind: Literal["convolution", "deconvolution"]
    pre_padding: tuple[int, ...]
    post_padding: tuple[int, ...]
    mode: str
    """``EXPLICIT_ROUND_DOWN``; or ``SAME_UPPER``, ``SAME_LOWER``, which override both paddings."""
    bias_at_run_time: bool
    """Whether the bias is an input rather than weights."""


@dataclass(frozen=True)
class ShapeRange:
    """The sizes of one dynamic input that an engine is built for."""

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Conversion:
    """What the toolchain of a target made of a model.

    Attributes:
        runtime: the toolchain and its version.
        outputs: how far its outputs are from onnxruntime's; empty if nothing here executes them.
        notes: what it said, such as ``cycles``, its own estimate, or ``cpu``, the operators that
            it leaves to the CPU.
    """

    runtime: str
    outputs: tuple[OutputParity, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetBuild:
    """What compiling a model for one target showed: compile evidence, not an execution.

    A number is None if the build did not get that far or this version does not give it.
    """

    target: str | None
    """Compute capability such as ``sm89``; None for the GPU of this machine."""
    stages: tuple[StageResult, ...]
    engine_bytes: int | None = None
    activation_bytes: int | None = None
    weights_bytes: int | None = None
    scratch_bytes: int | None = None
    kernels: tuple[Kernel, ...] | None = None
    layers: tuple[PaddedLayer, ...] = ()
    engine: OutputFile | None = None
    conversion: Conversion | None = None
    """What the toolchain of the target made of the model; None if TensorRT compiled it."""

    @property
    def builds(self) -> bool:
        """Whether the model was compiled."""
        return self.stage("build").status == "ok"

    @property
    def misread(self) -> bool:
        """Whether a toolchain converted the model, and then cannot run it, or computes it wrong."""
        return self.conversion is not None and self.stage("run").status == "failed"

    @property
    def failure(self) -> StageResult | None:
        """The stage that failed, if one did."""
        return next((stage for stage in self.stages if stage.status == "failed"), None)

    def stage(self, name: StageName) -> StageResult:
        """The result of one stage."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class BuildReport:
    """A model compiled for some targets."""

    source: ModelInfo
    runtime: str
    """Library and version, e.g. ``tensorrt_rtx 1.7.1.116``."""
    shapes: tuple[ShapeRange, ...]
    targets: tuple[TargetBuild, ...]
    note: str | None = None
    """For example which shapes were chosen because ``--shape`` gave none."""

    @property
    def builds(self) -> bool:
        """Whether the model builds for every target that was asked for."""
        return all(target.builds for target in self.targets)


@dataclass(frozen=True)
class Compilation:
    """A model as exported and as rewritten, compiled for the same targets."""

    before: BuildReport
    after: BuildReport

    @property
    def pairs(self) -> tuple[tuple[TargetBuild, TargetBuild], ...]:
        """Both builds, target by target."""
        return tuple(zip(self.before.targets, self.after.targets, strict=True))

    @property
    def broken(self) -> tuple[TargetBuild, ...]:
        """Builds of the rewritten model that fail for a target that takes the original.

        A rewritten model that is computed wrong has failed too, if the original is not.
        """
        return tuple(
            after
            for before, after in self.pairs
            if before.builds and (not after.builds or (after.misread and not before.misread))
        )

    @property
    def passed(self) -> bool | None:
        """Whether the rewritten model builds wherever the original does; None if neither does."""
        if self.broken:
            return False
        return True if any(after.builds for after in self.after.targets) else None
