"""The forms that a site may take, and the choice between them.

What `candidates` offers, `cost_model` predicts, `measure` times and `policy` decides on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deployconv.options import FeedOptions, Form, Shuffle
from deployconv.results import Candidate, Prediction
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.chain import ChainScope

FusionScope = Literal["none", ChainScope, "region", "region + conv"]
"""Which layers after a site run before its shuffle: none, a chain, a region, or a region that ends
in a Conv that mixes neighbouring pixels."""


@dataclass(frozen=True)
class Choice:
    """The name of one form of a site.

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
        """Whether the results of one Conv per phase are in memory together with their Concat."""
        return self.form == "split" and not self.channel_split

    def __str__(self) -> str:
        named = (self.form, self.shuffle, "halves" if self.channel_split else "auto")
        parts = [part for part in named if part != "auto"]
        fused = "" if self.fusion == "none" else f" + {self.fusion}"
        return (", ".join(parts) or "conv") + fused


@dataclass(frozen=True, eq=False)
class Option:
    """One form of a site: its name, and the rewrite itself.

    ``needs_measurement`` if it gains nothing but time and may need much more memory, so that it
    must not be taken unmeasured.
    """

    choice: Choice
    rewrite: Rewrite
    needs_measurement: bool = False


Choices = Mapping[str, Choice]
"""The form of each site that changes, by its id."""

AS_IT_WAS = "as it was"
"""Names the site as it stands, the first of its candidates in every report."""


@dataclass(frozen=True)
class Tuned:
    """The form of each site that changes, by its id, and what is known of all forms.

    ``over_memory`` are the sites of which a faster form needs too much memory.
    """

    choices: Choices = field(default_factory=dict)
    candidates: Mapping[str, tuple[Candidate | Prediction, ...]] = field(default_factory=dict)
    over_memory: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TunerOptions:
    """For what backend, threads and inputs to choose, and how long to measure.

    Attributes:
        backend: the runtime.
        threads: None for as many as the backend takes by itself.
        feed: the inputs.
        budget: seconds to measure.
        cache: whether to keep what was measured, and to use what was measured before.
        on_progress: called with the part that is done, 0 to 1.
        max_memory: times the peak memory of the original that speed is worth.
        dump: where the models of a failed certificate are written; None for nowhere.
    """

    backend: str = "ort"
    threads: int | None = None
    feed: FeedOptions = field(default_factory=FeedOptions)
    budget: float = 60.0
    cache: bool = True
    on_progress: Callable[[float], None] | None = None
    max_memory: float = 1.1
    dump: Path | None = None
