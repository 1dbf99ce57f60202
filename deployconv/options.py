"""The options of every command, defined once: its flags and its keyword arguments.

Each command of the command line has a frozen dataclass here. A field is one option: its name is
the keyword argument of the Python function, its `Flag` is what the command line shows. ``cli``
makes the flags from these fields; ``tests/cli/test_options.py`` holds the signatures in ``api``
against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deployconv.errors import UsageError
from deployconv.flags import Command, Flag, option
from deployconv.restrictions import UNRESTRICTED, Restrictions
from deployconv.results import Reason, ShuffleName, TargetSite

DEFAULT_RUNTIME = "ort"
"""Runs models if no runtime was asked for, or if the one that was should not run them."""

DEFAULT_BENCH_SECONDS = 10.0
"""Seconds that the comparison of two models may take if noise hides their ratio."""

Policy = Literal["all", "cost", "fastest"]

Form = Literal["auto", "crop", "pad", "split", "separable", "matrix", "polyphase", "normalised"]
"""The forms that a caller can ask for."""
Shuffle = Literal["auto", ShuffleName]
"""The shuffles that a caller can ask for."""

Shapes = Mapping[str, tuple[int, ...]]
"""Input name -> concrete shape, e.g. ``{"x": (1, 3, 64, 64)}``."""

Inputs = Path | Mapping[str, Any]
"""Arrays by input name: an ``.npz`` file, or the arrays themselves."""

ShapeRanges = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Input name -> smallest, optimal and largest shape that an engine is built for."""


@dataclass(frozen=True)
class FeedOptions:
    """What the models are run on: the user's own arrays, or seeded random ones."""

    shapes: Shapes = field(default_factory=dict)
    inputs: Inputs | None = None
    seed: int = 0


_TARGET_BACKEND = Flag(
    "Runtime: ort (CPU), ort:cuda, openvino, ...; deployconv doctor lists them. Default: that of "
    "the target if it is installed, else ort.",
    "NAME",
)
_BACKENDS = Flag(
    "Runtime: ort (CPU), ort:cuda, openvino, ...; deployconv doctor lists them. Repeat for "
    "several.",
    "NAME",
)
_SHAPE = Flag(
    "Shape of a dynamic input, e.g. x:1,3,64,64. Repeat for several inputs.", "NAME:1,3,H,W"
)
_INPUTS = Flag(
    "Run the models on these arrays, named as the inputs, instead of random ones.", "FILE.npz"
)
_SEED = Flag("Seed of the random inputs.", "N", minimum=0)
_THREADS = Flag("Threads of the runtime. Default: all processors.", "N", minimum=1, maximum=1024)
_TARGET = Flag(
    "Where the model will run: a name that deployconv targets lists, such as openvino, or a TOML "
    "file. It decides what is rewritten, and how. For a compute capability such as sm89, rewrite "
    "also compiles both models. Repeat to rewrite for several targets at once.",
    "NAME",
)
_REPORT = Flag("Also write a report as one HTML file.", "FILE.html")
_SKIP = Flag("Leave sites alone whose id or node name matches. Repeatable.", "GLOB")
_FREEZE_INITIALIZERS = Flag("Treat initializers that are also graph inputs as constants.")


@dataclass(frozen=True)
class SiteOptions:
    """Which upsampling layers are rewritten, and into which form."""

    policy: Policy | None = option(
        None,
        Flag(
            "all: every layer that can be rewritten; cost: those that are predicted to become "
            "faster; fastest: those that are measured to. Default: all, or as the target says."
        ),
    )
    form: Form = option(
        "auto",
        Flag(
            "crop: smallest kernel, then a crop; pad: no crop at the front; split: one Conv per "
            "phase; separable: one Conv per axis; matrix: one matrix product per axis; polyphase: "
            "an interpolating Resize as a Conv of its phases; normalised: the ConvTranspose stays, "
            "with explicit pads."
        ),
    )
    shuffle: Shuffle = option(
        "auto", Flag("Operators that move the phases from channels to positions in the image.")
    )
    only: tuple[str, ...] = option(
        (), Flag("Rewrite only sites whose id or node name matches. Repeatable.", "GLOB")
    )
    skip: tuple[str, ...] = option((), _SKIP)
    freeze_initializers: bool = option(False, _FREEZE_INITIALIZERS)
    resample: bool = option(
        False, Flag("Rewrite linear and cubic Resizes too, as matrix products or as Convs.")
    )
    allow_requantize: bool = option(
        False,
        Flag(
            "Give new scales to integer weights that cannot keep theirs, for example because taps "
            "have to be added. The result is close, not equal."
        ),
    )
    dequantize_weights: bool = option(
        False,
        Flag("Store integer weights that cannot keep their scales as floats: equal, but larger."),
    )


@dataclass(frozen=True)
class LayerRequest:
    """What a target asks for one layer.

    Attributes:
        form: how it is written if the restrictions allow that, else as what they allow.
        shuffle: the same for its shuffle.
        restrictions: what may be written.
        keep: why the layer stays as it is; None if it is to be rewritten.
        preferred: forms and shuffles to try before that, the best first.
        fewest: whether the one of `preferred` with the fewest multiplications is the best.
        resample: whether a Resize is rewritten that is no part of a larger layer.
        required: whether the layer is rewritten even if a policy finds that slower.
        targets: what each target does with the layer, for reports.
    """

    form: Form = "auto"
    shuffle: Shuffle = "auto"
    restrictions: Restrictions = UNRESTRICTED
    keep: Reason | None = None
    preferred: tuple[tuple[Form, Shuffle], ...] = ()
    fewest: bool = False
    resample: bool = False
    required: bool = False
    targets: tuple[TargetSite, ...] = ()

    @property
    def cannot_stay(self) -> bool:
        """Whether a target refuses or misreads the layer as it is."""
        return any(one.verdict in ("refused", "misread") for one in self.targets)


@dataclass(frozen=True)
class RewriteOptions(SiteOptions):
    """What the planner is asked for: `SiteOptions`, and what follows from other options."""

    policy: Policy = "all"

    request_for: Callable[[Any], LayerRequest] | None = None
    """Asked with each site that was found (`match.Site`); None asks the same for all of them."""

    float_bias: bool = False
    """Turn the int32 bias of rewritten layers into a float one: TensorRT parses no other."""
    shuffles: tuple[ShuffleName, ...] = ()
    """Those that the policies ``cost`` and ``fastest`` try, the likely fastest first; all if empty.

    It follows from the runtime.
    """
    may_match_nothing: bool = False
    """Whether ``only`` and ``skip`` may name no site, as they are meant for several models."""


@dataclass(frozen=True, kw_only=True)
class JobOptions(Command):
    """How the models of a command that takes several are run."""

    jobs: int = option(1, Flag("How many models to work on at once.", "N", minimum=1, maximum=1024))
    timeout: float | None = option(
        None,
        Flag("Give up on a model after this time.", "SECONDS", minimum=0.1, maximum=7 * 24 * 3600),
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions(JobOptions):
    """How the models of a command that takes thousands are run."""

    resume: Path | None = option(
        None,
        Flag(
            "Continue an interrupted run from its JSON; models in it are not run again.",
            "FILE.json",
        ),
    )
    cluster: str | None = option(
        None, Flag("Run the models on this Dask cluster, e.g. tcp://scheduler:8786.", "URL")
    )


@dataclass(frozen=True, kw_only=True)
class InspectCommand(Command):
    """The options of ``inspect``."""

    target: tuple[str, ...] = option((), _TARGET)
    freeze_initializers: bool = option(False, _FREEZE_INITIALIZERS)


@dataclass(frozen=True, kw_only=True)
class RewriteCommand(Command, SiteOptions):
    """The options of ``rewrite``."""

    output: Path | None = option(
        None, Flag("Default: MODEL.deploy.onnx beside the model.", "OUT", short="-o")
    )
    backend: str | None = option(None, _TARGET_BACKEND)
    target: tuple[str, ...] = option((), _TARGET)
    shape: Shapes | None = option(None, _SHAPE)
    inputs: Inputs | None = option(None, _INPUTS)
    seed: int = option(0, _SEED)
    threads: int | None = option(None, _THREADS)
    verify: bool = option(True, Flag("Run neither certificate nor parity check."))
    bench: bool = option(True, Flag("Take no timing."))
    strict: bool = option(
        False,
        Flag(
            "Fail with status 1 if a layer is left alone, unless it is best as it is, or if a "
            "target does not take the rewritten model."
        ),
    )
    dump: Path | None = option(
        None, Flag("Folder for the models and inputs of a failed certificate.", "DIR")
    )
    upgrade_opset: bool | None = option(
        None,
        Flag("Raise the model to opset 18 if col2im needs it and every node means the same there."),
    )
    budget: float = option(60.0, Flag("How long fastest may measure.", "SECONDS", minimum=1))
    cache: bool = option(True, Flag("Neither read nor keep measurements."))
    max_memory: float = option(
        1.1,
        Flag(
            "Peak memory that fastest may take, as a multiple of the original's (inf: any).",
            "TIMES",
            minimum=0,
        ),
    )
    report: Path | None = option(None, _REPORT)
    force: bool = option(False, Flag("Overwrite an existing output."))
    dry_run: bool = option(False, Flag("Do everything but write the model."))


@dataclass(frozen=True, kw_only=True)
class RunCommand(Command):
    """The options of a command that runs models on one or more backends."""

    backend: tuple[str, ...] = option((DEFAULT_RUNTIME,), _BACKENDS)
    shape: Shapes | None = option(None, _SHAPE)
    inputs: Inputs | None = option(None, _INPUTS)
    seed: int = option(0, _SEED)
    threads: int | None = option(None, _THREADS)


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(RunCommand):
    """The options of ``verify``."""

    report: Path | None = option(None, _REPORT)


@dataclass(frozen=True, kw_only=True)
class BenchCommand(RunCommand):
    """The options of ``bench``."""

    runs: int | None = option(None, Flag("Timed runs per model.", "N", minimum=1))
    budget: float = option(
        DEFAULT_BENCH_SECONDS,
        Flag(
            "How long two models may be compared if their ratio is uncertain.", "SECONDS", minimum=1
        ),
    )
    profile: bool = option(
        False,
        Flag(
            "Also show where the time goes, by site, as TensorRT's profiler measures it",
            capability="profiles_layers",
        ),
    )
    cuda_graph: bool = option(
        False, Flag("Time launches of a captured CUDA graph", capability="captures_graphs")
    )
    report: Path | None = option(None, _REPORT)


@dataclass(frozen=True, kw_only=True)
class BuildCommand(Command):
    """The options of ``build``."""

    target: tuple[str, ...] = option(
        (),
        Flag(
            "What to build for: a compute capability such as sm89, which needs no GPU, or a target "
            "whose toolchain is installed, such as ncnn. Repeatable. Default: the GPU of this "
            "machine.",
            "NAME",
        ),
    )
    backend: str | None = option(
        None, Flag("tensorrt-rtx or tensorrt. Default: the first that is installed.", "NAME")
    )
    shape: ShapeRanges | None = option(
        None,
        Flag(
            "Sizes of a dynamic input, e.g. x:1,3,64,64..1,3,256,256..4,3,512,512, or one "
            "shape. Repeat for several inputs.",
            "NAME:MIN..OPT..MAX",
        ),
    )
    engine: Path | None = option(
        None,
        Flag(
            "Write the engine. With several targets, net.engine becomes net.sm89.engine, ...",
            "FILE",
        ),
    )
    fp16: bool = option(
        False, Flag("Let TensorRT 8 to 10 use float16; newer ones follow the model's types.")
    )
    force: bool = option(False, Flag("Overwrite an existing engine."))


@dataclass(frozen=True, kw_only=True)
class CheckCommand(BatchOptions):
    """The options of ``check``."""

    target: tuple[str, ...] = option((), _TARGET)
    backend: str | None = option(None, _TARGET_BACKEND)
    skip: tuple[str, ...] = option((), _SKIP)
    shape: Shapes | None = option(
        None,
        Flag(
            "Shape of a dynamic input, for every model that has an input of this name. Repeatable.",
            "NAME:1,3,H,W",
        ),
    )
    inputs: Inputs | None = option(None, _INPUTS)
    seed: int = option(0, _SEED)
    strict: bool = option(
        False,
        Flag(
            "Fail each model with a layer that is left alone, unless it is best as it is, or that "
            "a target does not take."
        ),
    )
    report: Path | None = option(None, _REPORT)


def path_of(given: object) -> Path:
    """Return a path as it was given. Raises UsageError if it is none, or empty."""
    if not isinstance(given, (str, Path)):
        raise UsageError(f"{type(given).__name__} is neither a path nor a model: name a file")
    if not str(given):
        raise UsageError("a path is empty: name a file")
    return Path(given)
