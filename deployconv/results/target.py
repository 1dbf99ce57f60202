"""What targets take, and what they do with a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
    "slice",
    "transposed-pads",
    "edge-pad",
    "constant-first",
    "integer-bias",
    "symbolic-shape",
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
    conditions: Mapping[str, bool | Sequence[str | int] | Mapping[str, int]] = field(
        default_factory=dict
    )
    """The same as ``when`` for programs, as a file of a target states them: true or false, a list
    of what it may be, or a range with ``min`` and ``max``."""


EnvironmentState = Literal["installed", "other versions", "incomplete", "not installed", "unused"]
"""Whether the environment of a toolchain can be used, and why it cannot.

``other versions``: it was installed by another version of deployconv, which pins others.
``incomplete``: its installation was killed. ``unused``: no toolchain has this name.
"""


@dataclass(frozen=True)
class Target:
    """A target: what it takes, the version it was tested with, and whether it is installed."""

    name: str
    title: str
    version: str
    """Of the runtime or compiler that the profile was tested with; empty if there is none."""
    source: str
    installed: bool | None
    """Whether its Python package or its toolchain is installed here; None if it has neither."""
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
    tested: tuple[str, ...] = ()
    """What was run on it: ``layers``, ``resizes``, which are Resizes by themselves, or both."""
    package_here: bool | None = None
    """Whether the Python package is installed beside deployconv, as a backend needs it."""
    environment: EnvironmentState | None = None
    """Of the toolchain that ``deployconv target install`` installs; None if there is none."""


@dataclass(frozen=True)
class ToolchainEnvironment:
    """The environment of a toolchain on this machine, whether it is there or not."""

    name: str
    """Of the toolchain, and of the folder."""
    targets: tuple[str, ...]
    state: EnvironmentState
    size: int
    """Bytes on the disk; what it would take, about, if it is not installed."""
    path: Path
