"""Upsampling layers: what each is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployconv.results.target import DlaNote, TargetNote, TargetSite

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
