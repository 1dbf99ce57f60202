"""What the race about one site says of its forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deployconv.results import Candidate, Prediction
from deployconv.search.choice import Choice
from deployconv.search.measure import MARGIN


@dataclass(frozen=True)
class Figures:
    """The forms that a site may take, by name, and the figures of those that were timed."""

    forms: Mapping[str, Choice]
    timed: tuple[Candidate, ...]

    @property
    def winners(self) -> list[tuple[Choice, float]]:
        """The forms that are faster beyond the noise than the site as it was, with their ratios.

        The fastest first.
        """
        faster = [entry for entry in self._entries if entry.low > 1.0 + MARGIN]
        faster.sort(key=lambda entry: entry.ratio, reverse=True)
        return [(self.forms[entry.name], entry.ratio) for entry in faster]

    def without(self, choice: Choice) -> Figures:
        """The same without the figures of one form."""
        left = {name: other for name, other in self.forms.items() if other != choice}
        return Figures(left, self.timed)

    @property
    def hopeful(self) -> Candidate | None:
        """The form that may be the fastest where there is no winner."""
        likely = [entry for entry in self._entries if entry.ratio > 1.0]
        return max(likely, key=lambda entry: entry.ratio, default=None)

    @property
    def undecided(self) -> bool:
        """True where more rounds could find a winner."""
        return not self.winners and (not self.timed or self.hopeful is not None)

    def of(self, choice: Choice | None) -> Candidate | None:
        """The figures of one form; None where it was not timed."""
        return next((entry for entry in self._entries if entry.name == str(choice)), None)

    def rules_out(self, choice: Choice | None, taken: Choice | None) -> bool:
        """True where ``choice`` is measured to be no faster than ``taken``; None: as it was."""
        own, best = self.of(choice), self.of(taken)
        high = 1.0 if choice is None else own.high if own is not None else None
        return high is not None and high <= (best.low if best is not None else 1.0)

    def shown(
        self, predictions: tuple[Candidate | Prediction, ...], taken: str
    ) -> tuple[Candidate | Prediction, ...]:
        """The figures for the report, with a mark at the form that was taken.

        What is only predicted is there where nothing was timed, or where that form was taken.
        """
        timed = {entry.name for entry in self.timed}
        added = [
            entry
            for entry in predictions
            if not timed or (entry.name == taken and entry.name not in timed)
        ]
        return tuple(replace(entry, chosen=entry.name == taken) for entry in (*self.timed, *added))

    @property
    def _entries(self) -> list[Candidate]:
        """Without the site as it was, and what a broken cache may have made up."""
        return [entry for entry in self.timed if entry.name in self.forms]
