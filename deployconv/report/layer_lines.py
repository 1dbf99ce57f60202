"""The lines of a report on single layers: why they stay, and what targets do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployconv.report.lines import one_line
from deployconv.results import DlaNote, Inspection, Obstacle, SiteReport, TargetModel


def target_lines(sites: Sequence[SiteReport]) -> list[str]:
    """Say which layers a target needs rewritten, with its evidence about the exported ones."""
    return [
        one_line(f"{site.id}: {note.mark} for {', '.join(note.targets)} - {note.text}")
        for site in sites
        if (note := site.target_note)
    ]


def site_target_lines(sites: Sequence[SiteReport]) -> list[str]:
    """Say what targets do with each layer as exported, if its reason does not say so already."""
    return [
        one_line(f"{site.id}: {_VERDICTS[one.verdict].format(one.target)} - {one.text}")
        for site in sites
        for one in site.targets
        if one.text is not None and not (site.reason and one.text in site.reason.text)
    ]


_VERDICTS: Mapping[str, str] = {
    "fits": "fits {}",
    "refused": "refused by {}",
    "misread": "misread by {}",
    "slow": "slow on {}",
}


def misfit_lines(targets: Sequence[TargetModel], *, done: bool = True) -> list[str]:
    """Say for each target what is left in the model that it does not take."""
    would = "" if done else "would be "
    return [
        one_line(f"{target.name}: {would}left in the model: {target.left}")
        for target in targets
        if target.misfits
    ]


def dla_cell(note: DlaNote) -> str:
    """List the codes of what keeps a layer off the DLA, as exported and as rewritten."""
    exported = _codes(note.exported)
    return exported if note.rewritten is None else f"{exported} -> {_codes(note.rewritten)}"


def dla_lines(sites: Sequence[SiteReport]) -> list[str]:
    """Say what keeps each layer off the DLA, first what is the same before and after."""
    lines = []
    for site in sites:
        if site.dla is None:
            continue
        before, after = site.dla.exported, site.dla.rewritten
        both = [one for one in before if after is None or one in after]
        stages = (
            ("", both),
            ("as exported, ", [one for one in before if one not in both]),
            ("rewritten, ", [one for one in after or () if one not in both]),
        )
        found = [f"{when}{one.code}: {one.text}" for when, ones in stages for one in ones]
        if found:
            lines.append(one_line(f"{site.id}: off the DLA - {'; '.join(found)}"))
    return lines


def _codes(obstacles: Sequence[Obstacle]) -> str:
    return ", ".join(dict.fromkeys(one.code for one in obstacles)) or "fits"


def reason_line(site: SiteReport, *, done: bool = True) -> str | None:
    """Say why a site was left alone; None if it was not."""
    if site.reason is None:
        return None
    would = "" if done else "would be "
    return one_line(f"{site.id}: {would}{site.status} - {site.reason.code}: {site.reason.text}")


def inspection_lines(inspection: Inspection) -> list[str]:
    """Say why sites would be left alone, what targets do with them, and what would be left."""
    reasons = (reason_line(site, done=False) for site in inspection.sites)
    return [
        *filter(None, reasons),
        *site_target_lines(inspection.sites),
        *misfit_lines(inspection.targets, done=False),
    ]
