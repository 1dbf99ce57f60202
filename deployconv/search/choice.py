"""The forms that a site may take, and the choice between them.

What `candidates` offers, `cost_model` predicts, `measure` times and `policy` decides on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployconv.options import FeedOptions, Form, Shuffle
from deployconv.results import Candidate, Prediction
from deployconv.rewrites.joining import Reach
from deployconv.rewrites.lowering import AnyPlan, Subject


@dataclass(frozen=True)
class Choice:
    """A form and a shuffle, as the options of the same names, and how far the chain goes.

    ``halves`` as in `lowering.Plan`.
    """

    form: Form
    shuffle: Shuffle
    chain: Reach = "none"
    halves: bool = False

    @property
    def whole_split(self) -> bool:
        """Whether the results of one Conv a phase are held together with what is made of them."""
        return self.form == "split" and not self.halves

    def __str__(self) -> str:
        named = (self.form, self.shuffle, "halves" if self.halves else "auto")
        parts = [part for part in named if part != "auto"]
        return (", ".join(parts) or "conv") + _BEHIND[self.chain]


_BEHIND: dict[Reach, str] = {
    "none": "",
    "grid": " + quantize",
    "pointwise": " + pointwise",
    "all": " + chain",
    "region": " + region",
    "last": " + region + conv",
}


@dataclass(frozen=True, eq=False)
class Option:
    """A choice, what it lowers and the plan for that."""

    choice: Choice
    subject: Subject
    plan: AnyPlan
    roomy: bool = False
    """Whether it gains nothing but time and may need much more memory: not to be taken unseen."""


Choices = Mapping[str, Choice]
"""The form of each site that changes, by its id."""

AS_IT_WAS = "as it was"
"""Names the site as it stands, the first of its candidates in every report."""


@dataclass(frozen=True)
class Tuned:
    """The form of each site that changes, by its id, and what is known of all forms.

    ``heavy`` are the sites of which a faster form needs too much memory.
    """

    choices: Choices = field(default_factory=dict)
    candidates: Mapping[str, tuple[Candidate | Prediction, ...]] = field(default_factory=dict)
    heavy: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TunerOptions:
    """For what backend, threads and inputs to choose, and how long to measure."""

    backend: str = "ort"
    threads: int | None = None
    """None for as many as the backend takes by itself."""
    feed: FeedOptions = field(default_factory=FeedOptions)
    budget: float = 60.0
    """Seconds to measure."""
    cache: bool = True
    """Whether to keep what was measured, and to use what was measured before."""
    on_progress: Callable[[float], None] | None = None
    """Called with the part that is done, 0 to 1."""
    max_memory: float = 1.1
    """Times the peak memory of the original that speed is worth."""
