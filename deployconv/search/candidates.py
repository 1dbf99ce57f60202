"""The forms that each site of a model can take, as far as the options and the target allow them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from deployconv.graph.load import LoadedModel
from deployconv.options import Form, RewriteOptions
from deployconv.restrictions import UNRESTRICTED
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import Planning, plan_model
from deployconv.rewrites.within import broken_by
from deployconv.search.choice import Choice, Choices, Option
from deployconv.search.site_forms import forms_of


@dataclass(frozen=True, eq=False)
class Candidates:
    """All sites of one model and their forms; each form is planned once, when it is first needed.

    ``planning`` has the portable rewrite of each site.
    """

    planning: Planning
    _offered: dict[str, tuple[Option, ...]] = field(default_factory=dict)

    @property
    def model(self) -> LoadedModel:
        """The model that the sites belong to; it is not changed."""
        return self.planning.view.model

    @classmethod
    def of(cls, model: LoadedModel, options: RewriteOptions) -> Candidates:
        """The candidates of ``model``, as far as ``options`` allow them."""
        return cls(plan_model(model, options))

    def of_site(self, planned: PlannedSite) -> tuple[Option, ...]:
        """Every form of one site that is worth timing; none if it is not to be rewritten."""
        if planned.id not in self._offered:
            options = forms_of(planned, self.planning)
            if planned.site.restrictions != UNRESTRICTED or planned.shuffles:
                options = _allowed(options, planned)
            self._offered[planned.id] = tuple(options)
        return self._offered[planned.id]

    def with_choices(self, choices: Choices) -> Planning:
        """The planning in which the sites in ``choices`` have that form and all others stay."""
        rewrites = {}
        for planned in self.planning.default:
            if planned.id in choices:
                rewrites[planned.id] = self.option(planned, choices[planned.id]).rewrite
        return self.planning.with_rewrites(rewrites)

    def offer(self, choices: Choices) -> bool:
        """Whether every site in ``choices`` is one of these and may take that form."""
        sites = {planned.id: planned for planned in self.planning.default}
        return all(
            name in sites and any(option.choice == choice for option in self.of_site(sites[name]))
            for name, choice in choices.items()
        )

    def option(self, planned: PlannedSite, choice: Choice) -> Option:
        """The form of a site that ``choice`` names."""
        return next(option for option in self.of_site(planned) if option.choice == choice)


def _allowed(options: Iterable[Option], planned: PlannedSite) -> list[Option]:
    """The forms whose nodes may be written, with the planned one, which need not be among them."""
    limits, portable = planned.site.restrictions, planned.rewrite
    found = [
        option
        for option in options
        if not planned.shuffles or option.rewrite.summary.shuffle in (None, *planned.shuffles)
        if not broken_by(option.rewrite, limits)
    ]
    if portable is None or portable.summary in [option.rewrite.summary for option in found]:
        return found
    form, shuffle = portable.summary.form, portable.summary.shuffle
    named: Form = "auto" if form is None or form == "conv" else form
    return [Option(Choice(named, shuffle or "auto"), portable), *found]
