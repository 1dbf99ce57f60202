"""The forms that a site may take, the choice between them, and how the choice is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deployconv.options import DEFAULT_RUNTIME, FeedOptions, Form, Shuffle
from deployconv.results import Candidate, Prediction
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.chain import ChainScope

FusionScope = Literal["none", ChainScope, "region", "region + conv", "add", "1x1 conv in front"]
"""Which layers after a site run before its shuffle: none, a chain, a region, a region that ends in
a Conv that mixes neighbouring pixels, or the Add of a Resize and a pixel shuffle. Before an
interpolating Resize: 1x1 Convs."""


@dataclass(frozen=True)
class Choice:
    """Name one form of a site.

    Attributes:
        form: as the option of this name.
        shuffle: as the option of this name.
        fusion: which layers after the site run before its shuffle.
        channel_split: see `rewrites.conv.PolyphaseConv`.
    """

    form: Form
    shuffle: Shuffle
    fusion: FusionScope = "none"
    channel_split: bool = False

    @property
    def holds_all_phases(self) -> bool:
        """Whether the results of one Conv per phase are all in memory at once."""
        return self.form == "split" and not self.channel_split

    def __str__(self) -> str:
        named = (self.form, self.shuffle, "halves" if self.channel_split else "auto")
        parts = [part for part in named if part != "auto"]
        fused = "" if self.fusion == "none" else f" + {self.fusion}"
        stays = "resize" if self.fusion == "1x1 conv in front" else "conv"
        return (", ".join(parts) or stays) + fused


@dataclass(frozen=True, eq=False)
class Option:
    """One form of a site: its name, and the rewrite itself.

    ``needs_measurement`` is True if it multiplies no less and may need much more memory, so that it
    must not be taken unmeasured.
    """

    choice: Choice
    rewrite: Rewrite
    needs_measurement: bool = False


Choices = Mapping[str, Choice]
"""The form of each site that changes, by its id."""


@dataclass(frozen=True)
class Finalist:
    """Choices for a whole model that are compared with the original at the end.

    ``likely`` is False if some form is neither predicted nor measured to be faster by itself. Such
    choices have to be clearly faster.
    """

    choices: Choices
    likely: bool = True


AS_IT_WAS = "as it was"
"""The name of the first candidate in every report: the site as it was."""


@dataclass(frozen=True)
class Decision:
    """The form of each site that changes, by its id, and the candidates of all sites.

    ``over_memory`` has the sites that stay because their faster forms need too much memory,
    ``compared`` those of which a form took part in a comparison of the whole model, and
    ``predicted`` those of which a form was predicted to save enough.
    """

    choices: Choices = field(default_factory=dict)
    candidates: Mapping[str, tuple[Candidate | Prediction, ...]] = field(default_factory=dict)
    over_memory: frozenset[str] = frozenset()
    compared: frozenset[str] = frozenset()
    predicted: frozenset[str] = frozenset()
    not_observed: str | None = None
    """Why one run did not give the sizes that a prediction needs; None if there was no need."""


@dataclass(frozen=True)
class TunerOptions:
    """The backend, threads and inputs to choose for, and how long to measure.

    Attributes:
        backend: the runtime.
        threads: None for the backend's default.
        feed: the inputs to run on.
        budget: seconds to measure.
        cache: whether to store timings and to use those of earlier calls.
        on_progress: called with the part that is done, 0 to 1.
        max_memory: the limit of peak memory, as a multiple of that of the original.
        dump: where the models of a failed certificate are written; None for nowhere.
    """

    backend: str = DEFAULT_RUNTIME
    threads: int | None = None
    feed: FeedOptions = field(default_factory=FeedOptions)
    budget: float = 60.0
    cache: bool = True
    on_progress: Callable[[float], None] | None = None
    max_memory: float = 1.1
    dump: Path | None = None
