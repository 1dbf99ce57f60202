"""The options of every command, defined once: its flags and its keyword arguments.

Each command of the command line has a frozen dataclass here. A field is one option: its name is
the keyword argument of the Python function, its `Flag` is what the command line shows. ``cli``
makes the flags from these fields; ``tests/cli/test_options.py`` holds the signatures in ``api``
against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from deployconv.errors import UsageError
from deployconv.restrictions import UNRESTRICTED, Restrictions
from deployconv.results import Reason, ShuffleName, TargetSite

DEFAULT_RUNTIME = "ort"
"""Runs models if no runtime was asked for, or if the one that was should not run them."""

DEFAULT_BENCH_SECONDS = 10.0
"""Seconds that the comparison of two models may take if noise hides their ratio."""

Capability = Literal["profiles_layers", "captures_graphs", "compiles"]
"""What only some runtimes can do, and an option may need; fields of `runtimes.Runtime`."""

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
class Flag:
    """What the command line says of an option beyond its name, type and default.

    Attributes:
        help: the description.
        metavar: placeholder of the value in the help; None for the type or the choices.
        short: a second name of one letter, such as ``-o``.
        minimum: the smallest value that is allowed.
        maximum: the largest.
        capability: what a runtime must be able to do for this option; the help lists those that
            can.
    """

    help: str
    metavar: str | None = None
    short: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    capability: Capability | None = None


def _flag(
    help: str,
    metavar: str | None = None,
    *,
    short: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    capability: Capability | None = None,
) -> dict[str, Flag]:
    """Return the metadata of a dataclass field that is an option."""
    return {"flag": Flag(help, metavar, short, minimum, maximum, capability)}


@dataclass(frozen=True)
class Option:
    """One option of a command, as its dataclass defines it."""

    name: str
    type: Any
    default: Any
    flag: Flag

    @property
    def negated(self) -> bool:
        """Whether the flag turns something off: ``--no-verify`` for ``verify=False``."""
        return self.default is True

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The names of the flag: ``("--output", "-o")``."""
        long = f"--{'no-' if self.negated else ''}{self.name.replace('_', '-')}"
        return (long, self.flag.short) if self.flag.short else (long,)


def options_of(command: type) -> tuple[Option, ...]:
    """Return the options that the dataclass of a command defines, in the order of its help."""
    types = get_type_hints(command)
    return tuple(
        Option(one.name, types[one.name], one.default, one.metadata["flag"])
        for one in fields(command)
    )


@dataclass(frozen=True)
class FeedOptions:
    """What the models are run on: the user's own arrays, or seeded random ones."""

    shapes: Shapes = field(default_factory=dict)
    inputs: Inputs | None = None
    seed: int = 0


_TARGET_BACKEND = _flag(
    "Runtime: ort (CPU), ort:cuda, openvino, ...; deployconv doctor lists them. Default: that of "
    "the target if it is installed, else ort.",
    "NAME",
)
_BACKENDS = _flag(
    "Runtime: ort (CPU), ort:cuda, openvino, ...; deployconv doctor lists them. Repeat for "
    "several.",
    "NAME",
)
_SHAPE = _flag(
    "Shape of a dynamic input, e.g. x:1,3,64,64. Repeat for several inputs.", "NAME:1,3,H,W"
)
_INPUTS = _flag(
    "Run the models on these arrays, named as the inputs, instead of random ones.", "FILE.npz"
)
_SEED = _flag("Seed of the random inputs.", "N", minimum=0)
_THREADS = _flag("Threads of the runtime. Default: all processors.", "N", minimum=1, maximum=1024)
_TARGET = _flag(
    "Where the model will run: a name that deployconv targets lists, such as openvino, or a TOML "
    "file. It decides what is rewritten, and how. For a compute capability such as sm89, rewrite "
    "also compiles both models. Repeat to rewrite for several targets at once.",
    "NAME",
)
_REPORT = _flag("Also write a report as one HTML file.", "FILE.html")
_FREEZE_INITIALIZERS = _flag("Treat initializers that are also graph inputs as constants.")


@dataclass(frozen=True)
class SiteOptions:
    """Which upsampling layers are rewritten, and into which form."""

    policy: Policy | None = field(
        default=None,
        metadata=_flag(
            "all: every layer that can be rewritten; cost: those that are predicted to become "
            "faster; fastest: those that are measured to. Default: all, or as the target says."
        ),
    )
    form: Form = field(
        default="auto",
        metadata=_flag(
            "crop: smallest kernel, then a crop; pad: no crop at the front; split: one Conv per "
            "phase; separable: one Conv per axis; matrix: one matrix product per axis; polyphase: "
            "an interpolating Resize as a Conv of its phases; normalised: the ConvTranspose stays, "
            "with explicit pads."
        ),
    )
    shuffle: Shuffle = field(
        default="auto",
        metadata=_flag("Operators that move the phases from channels to positions in the image."),
    )
    only: tuple[str, ...] = field(
        default=(),
        metadata=_flag("Rewrite only sites whose id or node name matches. Repeatable.", "GLOB"),
    )
    skip: tuple[str, ...] = field(
        default=(),
        metadata=_flag("Leave sites alone whose id or node name matches. Repeatable.", "GLOB"),
    )
    freeze_initializers: bool = field(default=False, metadata=_FREEZE_INITIALIZERS)
    resample: bool = field(
        default=False,
        metadata=_flag("Rewrite linear and cubic Resizes too, as matrix products or as Convs."),
    )
    allow_requantize: bool = field(
        default=False,
        metadata=_flag(
            "Give new scales to integer weights that cannot keep theirs, for example because taps "
            "have to be added. The result is close, not equal."
        ),
    )
    dequantize_weights: bool = field(
        default=False,
        metadata=_flag(
            "Store integer weights that cannot keep their scales as floats: equal, but larger."
        ),
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
        resample: whether an interpolating Resize is rewritten.
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
class Command:
    """The options of one call of a command.

    Raises:
        UsageError: a value is none of the choices, or out of its range.
    """

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            _check(one, getattr(self, one.name))


@dataclass(frozen=True, kw_only=True)
class JobOptions(Command):
    """How the models of a command that takes several are run."""

    jobs: int = field(
        default=1,
        metadata=_flag("How many models to work on at once.", "N", minimum=1, maximum=1024),
    )
    timeout: float | None = field(
        default=None,
        metadata=_flag("Give up on a model after this time.", "SECONDS", minimum=0.1),
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions(JobOptions):
    """How the models of a command that takes thousands are run."""

    resume: Path | None = field(
        default=None,
        metadata=_flag(
            "Continue an interrupted run from its JSON; models in it are not run again.",
            "FILE.json",
        ),
    )
    cluster: str | None = field(
        default=None,
        metadata=_flag("Run the models on this Dask cluster, e.g. tcp://scheduler:8786.", "URL"),
    )


@dataclass(frozen=True, kw_only=True)
class InspectCommand(Command):
    """The options of ``inspect``."""

    target: tuple[str, ...] = field(default=(), metadata=_TARGET)
    freeze_initializers: bool = field(default=False, metadata=_FREEZE_INITIALIZERS)


@dataclass(frozen=True, kw_only=True)
class RewriteCommand(Command, SiteOptions):
    """The options of ``rewrite``."""

    output: Path | None = field(
        default=None,
        metadata=_flag("Default: MODEL.deploy.onnx beside the model.", "OUT", short="-o"),
    )
    backend: str | None = field(default=None, metadata=_TARGET_BACKEND)
    target: tuple[str, ...] = field(default=(), metadata=_TARGET)
    shape: Shapes | None = field(default=None, metadata=_SHAPE)
    inputs: Inputs | None = field(default=None, metadata=_INPUTS)
    seed: int = field(default=0, metadata=_SEED)
    threads: int | None = field(default=None, metadata=_THREADS)
    verify: bool = field(default=True, metadata=_flag("Run neither certificate nor parity check."))
    bench: bool = field(default=True, metadata=_flag("Take no timing."))
    strict: bool = field(
        default=False, metadata=_flag("Fail with status 1 if a site is not rewritten.")
    )
    dump: Path | None = field(
        default=None,
        metadata=_flag("Folder for the models and inputs of a failed certificate.", "DIR"),
    )
    upgrade_opset: bool | None = field(
        default=None,
        metadata=_flag(
            "Raise the model to opset 18 if col2im needs it and every node means the same there."
        ),
    )
    budget: float = field(
        default=60.0,
        metadata=_flag("How long fastest may measure.", "SECONDS", minimum=1),
    )
    cache: bool = field(default=True, metadata=_flag("Neither read nor keep measurements."))
    max_memory: float = field(
        default=1.1,
        metadata=_flag(
            "Peak memory that fastest may take, as a multiple of the original's (inf: any).",
            "TIMES",
            minimum=0,
        ),
    )
    report: Path | None = field(default=None, metadata=_REPORT)
    force: bool = field(default=False, metadata=_flag("Overwrite an existing output."))
    dry_run: bool = field(default=False, metadata=_flag("Do everything but write the model."))


@dataclass(frozen=True, kw_only=True)
class RunCommand(Command):
    """The options of a command that runs models on one or more backends."""

    backend: tuple[str, ...] = field(default=(DEFAULT_RUNTIME,), metadata=_BACKENDS)
    shape: Shapes | None = field(default=None, metadata=_SHAPE)
    inputs: Inputs | None = field(default=None, metadata=_INPUTS)
    seed: int = field(default=0, metadata=_SEED)
    threads: int | None = field(default=None, metadata=_THREADS)


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(RunCommand):
    """The options of ``verify``."""

    report: Path | None = field(default=None, metadata=_REPORT)


@dataclass(frozen=True, kw_only=True)
class BenchCommand(RunCommand):
    """The options of ``bench``."""

    runs: int | None = field(default=None, metadata=_flag("Timed runs per model.", "N", minimum=1))
    budget: float = field(
        default=DEFAULT_BENCH_SECONDS,
        metadata=_flag(
            "How long two models may be compared if their ratio is uncertain.",
            "SECONDS",
            minimum=1,
        ),
    )
    profile: bool = field(
        default=False,
        metadata=_flag(
            "Also show where the time goes, by site, as TensorRT's profiler measures it",
            capability="profiles_layers",
        ),
    )
    cuda_graph: bool = field(
        default=False,
        metadata=_flag("Time launches of a captured CUDA graph", capability="captures_graphs"),
    )
    report: Path | None = field(default=None, metadata=_REPORT)


@dataclass(frozen=True, kw_only=True)
class BuildCommand(Command):
    """The options of ``build``."""

    target: tuple[str, ...] = field(
        default=(),
        metadata=_flag(
            "What to build for: a compute capability such as sm89, which needs no GPU, or a target "
            "whose toolchain is installed, such as ncnn. Repeatable. Default: the GPU of this "
            "machine.",
            "NAME",
        ),
    )
    backend: str | None = field(
        default=None,
        metadata=_flag("tensorrt-rtx or tensorrt. Default: the first that is installed.", "NAME"),
    )
    shape: ShapeRanges | None = field(
        default=None,
        metadata=_flag(
            "Sizes of a dynamic input, e.g. x:1,3,64,64..1,3,256,256..4,3,512,512, or one "
            "shape. Repeat for several inputs.",
            "NAME:MIN..OPT..MAX",
        ),
    )
    engine: Path | None = field(
        default=None,
        metadata=_flag(
            "Write the engine. With several targets, net.engine becomes net.sm89.engine, ...",
            "FILE",
        ),
    )
    fp16: bool = field(
        default=False,
        metadata=_flag("Let TensorRT 8 to 10 use float16; newer ones follow the model's types."),
    )
    force: bool = field(default=False, metadata=_flag("Overwrite an existing engine."))


@dataclass(frozen=True, kw_only=True)
class CheckCommand(BatchOptions):
    """The options of ``check``."""

    target: tuple[str, ...] = field(default=(), metadata=_TARGET)
    backend: str | None = field(default=None, metadata=_TARGET_BACKEND)
    skip: tuple[str, ...] = field(
        default=(),
        metadata=_flag("Leave sites alone whose id or node name matches. Repeatable.", "GLOB"),
    )
    shape: Shapes | None = field(
        default=None,
        metadata=_flag(
            "Shape of a dynamic input, for every model that has an input of this name. Repeatable.",
            "NAME:1,3,H,W",
        ),
    )
    inputs: Inputs | None = field(default=None, metadata=_INPUTS)
    seed: int = field(default=0, metadata=_SEED)
    strict: bool = field(
        default=False, metadata=_flag("Fail each model with a site that is not rewritten.")
    )
    report: Path | None = field(default=None, metadata=_REPORT)


def path_of(given: object) -> Path:
    """Return a path as it was given. Raises UsageError if it is none, or empty."""
    if not isinstance(given, (str, Path)):
        raise UsageError(f"{type(given).__name__} is neither a path nor a model: name a file")
    if not str(given):
        raise UsageError("a path is empty: name a file")
    return Path(given)


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the values of a Literal type, also of one that may be None; none for any other."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(choices_of, get_args(kind))), ()) if _may_be_none(kind) else ()


def _may_be_none(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _check(one: Option, value: Any) -> None:
    choices = choices_of(one.type)
    if choices and value not in choices and not (value is None and _may_be_none(one.type)):
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise UsageError(f"{one.name} '{value}' is not known: choose {listed}")
    least, most = one.flag.minimum, one.flag.maximum
    if least is None or value is None or least <= value <= (inf if most is None else most):
        return
    unbounded = ", or infinity" if one.type is float else ""
    limit = f"on{unbounded}" if most is None else f"to {most:g}"
    raise UsageError(f"{one.name} is {value}: give a number from {least:g} {limit}")
