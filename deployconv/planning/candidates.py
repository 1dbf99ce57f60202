"""The forms that one site could take, besides staying as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deployconv.lowering import Plan, ShufflePlan, plan_shuffle, plan_site
from deployconv.lowering.shuffle import ShuffleName
from deployconv.options import Form, Shuffle
from deployconv.results import Reason
from deployconv.sites import ShuffleSite, SkippedSite, UpsampleSite

_SHUFFLES: tuple[ShuffleName, ...] = ("col2im", "two-step", "dcr", "crd", "transpose")
"""Likely winners first."""
_MORE_WORK = 1.6
"""A form with this many times the multiplications of the smallest is not worth a measurement."""


@dataclass(frozen=True)
class Choice:
    """A form and a shuffle, as the options of the same names."""

    form: Form
    shuffle: Shuffle

    def __str__(self) -> str:
        parts = [part for part in (self.form, self.shuffle) if part != "auto"]
        return ", ".join(parts) or "conv"


@dataclass(frozen=True, eq=False)
class Option:
    """A choice and the plan that it gives for one site."""

    choice: Choice
    plan: Plan | ShufflePlan


def options_for(site: UpsampleSite | ShuffleSite | SkippedSite) -> list[Option]:
    """Every plan worth timing for ``site``, each once."""
    if isinstance(site, SkippedSite):
        return []
    found = list(_shuffles(site) if isinstance(site, ShuffleSite) else _forms(site))
    spelled = {option.plan.shuffle for option in found}
    if spelled & {"dcr", "crd", "two-step"}:  # the general Transpose is slower than any of them
        found = [option for option in found if option.plan.shuffle != "transpose"]
    return found


def _shuffles(site: ShuffleSite) -> Iterator[Option]:
    for name in _SHUFFLES:
        plan = plan_shuffle(site, name)
        if isinstance(plan, ShufflePlan) and plan.shuffle == name:
            yield Option(Choice("auto", name), plan)


def _forms(site: UpsampleSite) -> Iterator[Option]:
    plain = plan_site(site)
    if isinstance(plain, Plan) and plain.shuffle is None:
        yield Option(Choice("auto", "auto"), plain)
        return
    seen = set()
    fewest: int | None = None
    forms: tuple[Form, ...] = ("crop", "pad")
    for form in forms:
        for name in _SHUFFLES:
            plan = plan_site(site, form, name)
            if isinstance(plan, Reason) or plan.shuffle != name:
                continue
            fewest = fewest or plan.macs.after
            if (plan.axes, name) not in seen and plan.macs.after <= _MORE_WORK * fewest:
                seen.add((plan.axes, name))
                yield Option(Choice(form, name), plan)
