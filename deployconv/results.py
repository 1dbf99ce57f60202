"""What the commands find, as plain frozen dataclasses. Times are milliseconds, sizes bytes.

Planning, checks and runtimes fill them in; ``report`` turns them into a table, JSON or
JUnit XML. The JSON keys are the names of the fields, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Displayed:
    """A result that a notebook shows as HTML, if something can draw it.

    ``draw`` is set by ``api``. It returns None where the libraries that it needs are missing.
    """

    draw: ClassVar[Callable[[Displayed], str | None] | None] = None

    def _repr_html_(self) -> str | None:
        return None if Displayed.draw is None else Displayed.draw(self)


# --- Models ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInfo:
    """The model that was read; ``path`` and ``sha256`` are None for one given in memory.

    ``opset`` is 0 for a model that imports the operators of other domains only.
    """

    path: str | None
    sha256: str | None
    opset: int
    ir_version: int


@dataclass(frozen=True)
class OutputFile:
    """A file that was written: a model or an engine."""

    path: str
    sha256: str


# --- Sites: the upsampling layers of a model ------------------------------------------------

FormName = Literal["crop", "pad", "split", "separable", "matrix", "polyphase", "conv", "normalised"]
"""The forms that a rewritten layer can have. ``conv`` is a Conv without a shuffle, ``polyphase`` an
interpolating Resize as a Conv of its phases, ``normalised`` the ConvTranspose itself with explicit
pads."""
ShuffleName = Literal[
    "dcr",
    "crd",
    "dcr-steps",
    "crd-steps",
    "transpose",
    "two-step",
    "col2im",
    "channels-last",
    "by-axis",
    "concat",
    "masks",
]
"""The ways to move the phases from channels into space."""
Pattern = Literal[
    "conv_transpose", "zero_insertion", "nearest_resize", "pixel_shuffle", "interpolating_resize"
]
Status = Literal["rewritten", "folded", "kept", "skipped"]
"""What became of a layer; a folded one stays, with affine layers after it in its weights."""
Certificate = Literal["exact", "failed"]
DlaCode = Literal[
    "channels",
    "dilation",
    "dtype",
    "group",
    "kernel",
    "operator",
    "padding",
    "rank",
    "size",
    "stride",
]


_AS_IT_SHOULD_BE = ("already-lowered", "fits-target", "slower-on-target")
"""Codes of the reasons for which there is nothing to do."""


@dataclass(frozen=True)
class Reason:
    """Why a site was left alone: a stable hyphenated ``code`` and one line of ``text``."""

    code: str
    text: str


@dataclass(frozen=True)
class Macs:
    """Multiplications per low-resolution pixel, over all channels, borders not counted.

    Counted per input pixel so that the number exists for dynamic sizes too: nearest Resize
    x2 + Conv 3x3 is 36 before and 16 after, times the channels.
    """

    before: int
    after: int


@dataclass(frozen=True)
class Candidate:
    """One form of a site that was timed within the whole model.

    ``ms`` is the time of the whole model; ``ratio`` is the time with the site as it was / the
    time in this form, with 95 % confidence between ``low`` and ``high``. A form may be ``chosen``
    by a comparison of several sites together. With ``alone``, all these are times of the layers
    that any form of the site replaces, run without the rest of the model.
    """

    name: str
    ms: float
    ratio: float
    low: float
    high: float
    chosen: bool
    alone: bool = False


@dataclass(frozen=True)
class Prediction:
    """One form of a site whose time was predicted and not measured.

    ``predicted_ms`` is the time, in this form, of the layers that any form of the site replaces.
    """

    name: str
    predicted_ms: float
    chosen: bool


@dataclass(frozen=True)
class Requantization:
    """How far new scales moved the weights of a layer, as parts of the largest weight."""

    max_error: float
    rms_error: float


@dataclass(frozen=True)
class TargetNote:
    """Why a target needs this layer rewritten, with the evidence in ``text``.

    ``needed``: the layer does not build as exported. ``misread``: it builds, but TensorRT's
    importer reads another padding or bias than the model has.
    """

    mark: Literal["needed", "misread"]
    targets: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Obstacle:
    """One thing that keeps a layer off the DLA: a stable ``code`` and one line of ``text``."""

    code: DlaCode
    text: str


@dataclass(frozen=True)
class DlaNote:
    """What is documented to keep a layer off the DLA of a Jetson; empty if nothing is."""

    exported: tuple[Obstacle, ...]
    rewritten: tuple[Obstacle, ...] | None = None
    """After `rewrite`; None for a layer that would stay as it is."""


TargetVerdict = Literal["fits", "refused", "misread", "slow"]
"""What a target does with a layer as it is exported; ``misread`` is a wrong result."""
TargetAction = Literal["rewrite", "keep", "cost"]
TargetChoice = Literal["first", "fewest-multiplications"]
"""What is done for a target: rewrite, leave alone, or what is predicted to be faster."""
MisfitCode = Literal[
    "operator",
    "block-size",
    "rank",
    "dtype",
    "opset",
    "dynamic-size",
    "reshape",
    "nearest-resize",
]


@dataclass(frozen=True)
class TargetSite:
    """What one target does with a layer as exported, and what follows from that.

    ``text``, ``source`` and ``version`` are those of the rule that was decisive; None if no rule
    speaks of the layer. ``stage`` is where the target refuses it.
    """

    target: str
    verdict: TargetVerdict
    action: TargetAction
    stage: str | None = None
    text: str | None = None
    source: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Misfit:
    """One thing in a model that a target does not take: a stable ``code``, and one line.

    ``nodes`` names the nodes; empty if it concerns the whole model.
    """

    code: MisfitCode
    text: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetModel:
    """A target that a model was planned for, and what is left in the model that it does not take.

    ``misfits`` is about the model after the rewrite. Empty only means that the target's profile
    names no limit that the model exceeds.
    """

    name: str
    title: str
    version: str
    """Of the runtime or compiler that the profile was tested with; empty if there is none."""
    source: str
    misfits: tuple[Misfit, ...] = ()

    @property
    def left(self) -> str:
        """What is left in the model that the target does not take, on one line."""
        counts = [f" ({len(one.nodes)} nodes)" if one.nodes[1:] else "" for one in self.misfits]
        return "; ".join(one.text + count for one, count in zip(self.misfits, counts, strict=True))


@dataclass(frozen=True)
class TargetRule:
    """One rule of a target: for which layers, what it does with them, and where this is from."""

    when: Mapping[str, bool | str]
    """Conditions by the name of a fact, as people read them."""
    verdict: TargetVerdict
    text: str
    action: TargetAction
    stage: str | None
    prefer: tuple[str, ...]
    ratio: float | None
    """Time of the original / time rewritten, where that was measured."""
    source: str
    version: str


@dataclass(frozen=True)
class Target:
    """A target: what it takes, the version it was tested with, and whether it is installed."""

    name: str
    title: str
    version: str
    """Of the runtime or compiler that the profile was tested with; empty if there is none."""
    source: str
    installed: bool | None
    """Whether its toolchain is installed here; None if no Python package brings it."""
    package: str | None
    backend: str | None
    """The backend that executes it; None if there is none."""
    action: TargetAction
    """What is done with a layer that fits as it is and that no rule matches."""
    prefer: tuple[str, ...]
    """Forms and shuffles, the best first."""
    choose: TargetChoice
    """Which of them a layer gets: the first that fits, or the one that multiplies least."""
    takes: tuple[str, ...]
    """What it takes at all, a sentence for each limit; empty if no limit is known."""
    rules: tuple[TargetRule, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SiteReport:
    """One upsampling layer of the model and what became of it."""

    id: str
    pattern: Pattern
    nodes: tuple[str, ...]
    scope: str
    stride: tuple[int, ...] | None
    kernel: tuple[int, ...] | None
    dilation: tuple[int, ...] | None
    group: int | None
    dtype: str | None
    status: Status
    reason: Reason | None = None
    form: FormName | None = None
    shuffle: ShuffleName | None = None
    conv_kernel: tuple[int, ...] | None = None
    macs: Macs | None = None
    certificate: Certificate | None = None
    certificate_failure: str | None = None
    """The first element that differs, for a certificate that failed."""
    parity_only: tuple[str, ...] = ()
    """Nodes that the certificate does not cover, only the parity of the whole model does."""
    target_note: TargetNote | None = None
    dla: DlaNote | None = None
    """None unless `inspect` was asked for the DLA."""
    candidates: tuple[Candidate | Prediction, ...] = ()
    requantized: Requantization | None = None
    """Set if the weights got new scales, as the call allowed."""
    targets: tuple[TargetSite, ...] = ()
    """What each target does with it, if targets were named."""

    @property
    def changed(self) -> bool:
        """Whether the layer is another one now, or the same with other weights."""
        return self.status in ("rewritten", "folded")

    @property
    def left_alone(self) -> bool:
        """Whether the layer is neither rewritten, nor as it should be for its target already."""
        done = self.reason is not None and self.reason.code in _AS_IT_SHOULD_BE
        return self.status != "rewritten" and not done


# --- Parity: do two models compute the same -------------------------------------------------


@dataclass(frozen=True)
class OutputParity:
    """How far one output of the candidate is from that of the reference."""

    name: str
    max_abs: float
    max_rel: float
    tolerance: float
    passed: bool
    problem: str | None = None
    """What differs besides the values: shape, dtype, NaN pattern."""


@dataclass(frozen=True)
class SizeParity:
    """Outputs of two models with dynamic inputs at other sizes than the first ones.

    ``not-run`` if the original does not run at these sizes, which is no failure.
    """

    shapes: Mapping[str, tuple[int, ...]]
    """By input name."""
    status: Literal["passed", "failed", "not-run"]
    outputs: tuple[OutputParity, ...] = ()
    """Empty if one of the models did not run."""
    reason: str | None = None
    """Why a model did not run, or what had to be tolerated."""


@dataclass(frozen=True)
class Parity(Displayed):
    """Outputs of two models on the same inputs, as one backend computed them.

    ``outputs`` are those at the first sizes; ``passed`` counts the other sizes too.
    """

    backend: str
    passed: bool
    outputs: tuple[OutputParity, ...]
    note: str | None = None
    """For example that a bfloat16 model was compared as its float32 twin."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The first sizes, by input name."""
    other_sizes: tuple[SizeParity, ...] = ()
    """For a model with dynamic inputs, what was run besides."""


# --- Latency --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantiles:
    """Latency of one model in milliseconds."""

    median: float
    p95: float


@dataclass(frozen=True)
class LayerTime:
    """One layer of a runtime: milliseconds per run, and the ONNX nodes that it computes."""

    name: str
    ms: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class SiteTime:
    """The layers that compute the same ``sites``; no site for all layers that belong to none.

    ``ms`` is the sum of the layers. A layer that several sites were fused into is counted once,
    for these sites together.
    """

    sites: tuple[str, ...]
    ms: float
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes; means over ``runs``, measured apart from the latency.

    Each layer is timed by itself, so the sum is more than the latency.
    """

    runs: int
    sites: tuple[SiteTime, ...]


@dataclass(frozen=True)
class Latency:
    """Interleaved timing. ``ratio`` is before / after: above 1, the second model is faster."""

    backend: str
    provider: str
    threads: int
    runs: int
    machine: str
    runtime: str
    before_ms: Quantiles
    after_ms: Quantiles | None = None
    ratio: float | None = None
    cuda_graph: bool = False
    """Whether each run was the launch of a captured CUDA graph."""
    profiles: tuple[Profile, ...] = ()
    """One per model, if they were asked for."""
    low: float | None = None
    """Lower end of the 95 % confidence interval of ``ratio``; None if there were too few runs."""
    high: float | None = None
    """Upper end of that interval."""
    note: str | None = None
    """What the times suffered from: more was running than there are processors."""
    times_ms: tuple[tuple[float, ...], ...] = ()
    """Every counted run in milliseconds, one list per model. Equal positions ran together."""


# --- Details: what a report draws besides ------------------------------------------------------


@dataclass(frozen=True)
class DrawnNode:
    """A node in a picture of a graph; ``detail`` has its attributes and constants in words."""

    name: str
    operator: str
    detail: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class DrawnGraph:
    """Nodes in their order, and the shapes of the tensors between them, such as ``1x64xHxW``."""

    nodes: tuple[DrawnNode, ...]
    shapes: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """The nodes that were removed and those that took their place, for one or several sites."""

    sites: tuple[str, ...]
    before: DrawnGraph
    after: DrawnGraph


@dataclass(frozen=True)
class KernelPhases:
    """Which taps of a site's kernel each phase has, per spatial axis.

    ``axes[a][q][m]`` are the taps along axis ``a`` that stand at place ``m`` of the small kernel
    of phase ``q``: none where that kernel has a zero, several where they are added up.
    """

    site: str
    axes: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]


@dataclass(frozen=True)
class OutputMaps:
    """One plane of an output of both models, and their difference, as rows of numbers.

    ``plane`` says which, such as ``[0, 0, :, :]``. A large plane is made smaller: outputs by their
    means over blocks, the absolute difference by its largest values.
    """

    plane: str
    reference: tuple[tuple[float, ...], ...]
    candidate: tuple[tuple[float, ...], ...]
    difference: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class OutputDetail:
    """How the differences of one output are spread.

    ``equal`` counts the elements without a difference. ``counts`` has the others, by the power of
    ten that their difference is at least: ``exponents``, the smallest first.
    """

    name: str
    equal: int
    exponents: tuple[int, ...]
    counts: tuple[int, ...]
    maps: OutputMaps | None = None


@dataclass(frozen=True)
class Details:
    """What is collected for a report only."""

    changes: tuple[Change, ...] = ()
    phases: tuple[KernelPhases, ...] = ()
    outputs: tuple[OutputDetail, ...] = ()
    memory_bytes: tuple[int, ...] = ()
    """Peak memory of the original and of the rewritten model; empty if it was not measured."""
    profiles: tuple[Profile, ...] = ()
    """Time per layer of both models, as onnxruntime's profiler measures it."""
    missing: tuple[str, ...] = ()
    """What could not be collected, and why."""


# --- Builds: what TensorRT compiles a model to ----------------------------------------------

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


# --- Differences: what two models do not have in common -----------------------------------------


@dataclass(frozen=True)
class NodeLine:
    """A node that only one of two models has."""

    scope: str
    name: str
    """Its outputs, if it has no name."""
    operator: str


@dataclass(frozen=True)
class ChangedWeight:
    """A weight that two models have with other values.

    ``before`` and ``after`` are element types and shapes. ``max_abs`` is the largest difference;
    None if the types or shapes differ, or it holds no numbers.
    """

    name: str
    before: str
    after: str
    max_abs: float | None


@dataclass(frozen=True)
class ModelDifference:
    """What differs between two models."""

    before: ModelInfo
    after: ModelInfo
    interface: tuple[str, ...]
    """Inputs, outputs and versions, in words."""
    nodes_removed: tuple[NodeLine, ...]
    nodes_added: tuple[NodeLine, ...]
    weights_removed: tuple[str, ...]
    weights_added: tuple[str, ...]
    weights_changed: tuple[ChangedWeight, ...]

    @property
    def equal(self) -> bool:
        """Whether the models have the same nodes, weights and interface."""
        return not (
            self.interface
            or self.nodes_removed
            or self.nodes_added
            or self.weights_removed
            or self.weights_added
            or self.weights_changed
        )


# --- Commands -------------------------------------------------------------------------------

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
