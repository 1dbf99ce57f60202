"""One form of a site: its name, and what it lowers."""

from __future__ import annotations

from dataclasses import dataclass

from deployconv.options import Form, Shuffle
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
