"""Results as the pipeline would return them, to be shown."""

from __future__ import annotations

from dataclasses import replace

from deployconv.results import (
    BuildReport,
    Candidate,
    CheckReport,
    Inspection,
    Kernel,
    Latency,
    LayerTime,
    Macs,
    ModelCheck,
    ModelInfo,
    NotRun,
    OutputFile,
    OutputParity,
    Parity,
    Prediction,
    Profile,
    Quantiles,
    Reason,
    Rewriting,
    ShapeRange,
    SiteReport,
    SiteTime,
    SizeParity,
    StageResult,
    TargetBuild,
)

SOURCE = ModelInfo(path="net.onnx", sha256="a" * 64, opset=17, ir_version=8)

REWRITTEN = SiteReport(
    id="main/decoder/up.0/ConvTranspose",
    pattern="conv_transpose",
    nodes=("decoder/up.0/ConvTranspose",),
    scope="main",
    stride=(2, 2),
    kernel=(4, 4),
    dilation=(1, 1),
    group=1,
    dtype="float32",
    status="rewritten",
    form="crop",
    shuffle="dcr",
    conv_kernel=(2, 2),
    macs=Macs(before=32768, after=32768),
    certificate="exact",
)

KEPT = replace(
    REWRITTEN,
    id="main/If_3.then_branch/up[bold]",
    scope="main/If_3.then_branch",
    dilation=(2, 1),
    group=8,
    dtype="float16",
    status="kept",
    reason=Reason("runtime-weight", "the weight arrives at run time"),
    form=None,
    shuffle=None,
    conv_kernel=None,
    macs=None,
    certificate=None,
)

AS_IT_WAS = Candidate("as it was", ms=5.41, ratio=1.0, low=1.0, high=1.0, chosen=False)
COL2IM = Candidate("crop, col2im", ms=3.32, ratio=1.63, low=1.58, high=1.7, chosen=True)
DCR = Candidate("crop, dcr", ms=6.0, ratio=0.9, low=0.88, high=0.91, chosen=False)
MEASURED = replace(REWRITTEN, shuffle="col2im", candidates=(AS_IT_WAS, COL2IM, DCR))
SLOWER = replace(
    KEPT,
    reason=Reason("slower", "no other form of it was measured to be faster"),
    candidates=(replace(AS_IT_WAS, chosen=True), DCR),
)

PREDICTED = replace(
    REWRITTEN,
    shuffle="col2im",
    candidates=(
        Prediction("as it was", predicted_ms=5.41, chosen=False),
        Prediction("crop, col2im", predicted_ms=3.32, chosen=True),
    ),
)

EXACT_OUTPUT = OutputParity("y", max_abs=1.25e-7, max_rel=3e-7, tolerance=1e-5, passed=True)
WRONG_OUTPUT = OutputParity("z", max_abs=0.5, max_rel=0.25, tolerance=1e-5, passed=False)
NAN_OUTPUT = OutputParity(
    "w",
    max_abs=float("nan"),
    max_rel=float("inf"),
    tolerance=1e-5,
    passed=False,
    problem="NaN at other places",
)

PARITY = Parity(backend="ort", passed=True, outputs=(EXACT_OUTPUT,))
OTHER_SIZES = (
    SizeParity({"x": (2, 3, 32, 96)}, "passed", (EXACT_OUTPUT,)),
    SizeParity({"x": (0, 3, 64, 64)}, "not-run", reason="the original does not run there: why"),
)
DYNAMIC_PARITY = replace(PARITY, shapes={"x": (1, 3, 64, 64)}, other_sizes=OTHER_SIZES)
FAILED_PARITY = Parity(backend="ort", passed=False, outputs=(EXACT_OUTPUT, WRONG_OUTPUT))

LATENCY = Latency(
    backend="ort",
    provider="CPUExecutionProvider",
    threads=2,
    runs=30,
    machine="x86_64, 2 cores",
    runtime="onnxruntime 1.32.0",
    before_ms=Quantiles(median=5.41, p95=5.9),
    after_ms=Quantiles(median=3.32, p95=3.5),
    ratio=5.41 / 3.32,
    low=1.58,
    high=1.7,
)

CONV = LayerTime("up + relu", ms=1.5, nodes=("up", "relu"))
COPY = LayerTime("copy[bold]", ms=0.5, nodes=())
PROFILE = Profile(
    runs=20,
    sites=(SiteTime(("main/up",), 1.5, (CONV,)), SiteTime((), 0.5, (COPY,))),
)
FUSED = Profile(runs=20, sites=(SiteTime(("main/up", "main/last"), 0.0, (CONV, COPY)),))
PROFILED = replace(LATENCY, backend="tensorrt", cuda_graph=True, profiles=(PROFILE, FUSED))

REWRITING = Rewriting(
    source=SOURCE,
    sites=(REWRITTEN, KEPT),
    parity=PARITY,
    latency=LATENCY,
    output=OutputFile(path="net.deploy.onnx", sha256="b" * 64),
)
FAILED_REWRITING = replace(REWRITING, parity=FAILED_PARITY, latency=None, output=None)
UNPROVED = Rewriting(
    source=SOURCE,
    sites=(replace(REWRITTEN, certificate=None),),
    not_run=(
        NotRun("certificate", "--no-verify was given"),
        NotRun("parity", "--no-verify was given"),
        NotRun("latency", "--no-bench was given"),
    ),
)
FASTEST = replace(REWRITING, sites=(MEASURED, SLOWER))
WITHOUT_SITES = Rewriting(source=SOURCE, sites=(), parity=PARITY, latency=LATENCY)

INSPECTION = Inspection(source=SOURCE, sites=(replace(REWRITTEN, certificate=None), KEPT))

CHECK_REPORT = CheckReport(
    models=(
        ModelCheck("a.onnx", "passed", 1.5, result=REWRITING),
        ModelCheck("b.onnx", "failed", 0.25, result=FAILED_REWRITING, message="parity <failed>"),
        ModelCheck("c.onnx", "error", 0.0, message='not a model: "\x00\x1b[31m"'),
        ModelCheck("d.onnx", "not-run", 0.125, message="ort:cuda is not available"),
    )
)

_CHECKED = StageResult("check", "ok", 0.01)
_NO_DRIVER = "no CUDA driver"
BUILT = TargetBuild(
    "sm86",
    (
        _CHECKED,
        StageResult("parse", "ok", 0.004),
        StageResult("build", "ok", 0.125),
        StageResult("deserialize", "not-run", reason=_NO_DRIVER),
        StageResult("run", "not-run", reason="a build ends with the engine"),
        StageResult("profile", "not-run", reason="a build ends with the engine"),
    ),
    engine_bytes=374804,
    activation_bytes=9625600,
    weights_bytes=96000,
    scratch_bytes=9625600,
    kernels=(
        Kernel("move", "kgen", ("Float",), ("Float",), ()),
        Kernel("up", "deconv", ("Float",), ("Float",), ("up",)),
        Kernel("last", "kgen", ("Float",), ("Float",), ("up",)),
    ),
    engine=OutputFile("net.sm86.engine", "c" * 64),
)
NOT_BUILT = TargetBuild(
    "sm89",
    (
        _CHECKED,
        StageResult("parse", "failed", 0.004, "no\nnegative pads", "up", "ConvTranspose"),
        *(
            StageResult(name, "not-run", reason="parse failed")
            for name in ("build", "deserialize", "run", "profile")
        ),
    ),
)
BUILD_REPORT = BuildReport(
    SOURCE,
    "tensorrt_rtx 1.7.1",
    (ShapeRange("x", (1, 8), (1, 16), (4, 32)), ShapeRange("z", (1, 8), (1, 8), (1, 8))),
    (BUILT,),
    note="shapes chosen by deployconv: z:1,8",
)
FAILED_BUILD_REPORT = replace(BUILD_REPORT, targets=(BUILT, NOT_BUILT))
