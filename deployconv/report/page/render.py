"""Render a JSON document of deployconv as one HTML page that needs no other file."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from deployconv.errors import UsageError
from deployconv.report.lines import count, milliseconds, one_line
from deployconv.report.page import drawing, phases, plots
from deployconv.temporary import check_report_path, whole_file

Part = Mapping[str, Any]
"""A part of a JSON document."""

_LIBRARIES = ("jinja2", "matplotlib", "networkx")
_VERDICTS = {
    "fits": "takes it as exported",
    "refused": "refuses it as exported",
    "misread": "misreads it as exported",
    "slow": "runs it slowly as exported",
}
_FRAME = 640
"""Height of the page in a notebook, in pixels."""
_INSTALL = "pip install 'deployconv[report]'"


def require_libraries() -> None:
    """Raise UsageError if a library that draws the page is not installed."""
    from importlib.util import find_spec

    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise UsageError(f"a report needs {', '.join(missing)}: {_INSTALL}")


def require_writable(path: Path) -> None:
    """Raise UsageError if no report can be written at ``path``, or a model would be lost there."""
    check_report_path(path, f"--report {path}", "name a file that ends in .html")


@dataclass(frozen=True)
class Card:
    """One model of the page: its sites and what was found out about it."""

    title: str
    sites: Sequence[Part] = ()
    parity: Sequence[Part] = ()
    latency: Sequence[Part] = ()
    details: Part = field(default_factory=dict)
    not_run: Sequence[Part] = ()
    warnings: Sequence[str] = ()
    compiled: Part | None = None
    output: Part | None = None
    status: str | None = None
    message: str | None = None
    source: Part | None = None
    targets: Sequence[Part] = ()

    @cached_property
    def headline(self) -> str:
        """What was rewritten, whether it is proved, and what it gains."""
        if self.message and not self.sites:
            return one_line(self.message)
        said = [self._rewritten(), self._proved(), self._gained()]
        return "; ".join(filter(None, said)) or "nothing was found"

    def _rewritten(self) -> str:
        if not self.sites:
            return ""
        changed = [site for site in self.sites if site["status"] in ("rewritten", "folded")]
        return f"{len(changed)} of {count(self.sites, 'upsampling layer')} rewritten"

    def _proved(self) -> str:
        certificates = [site["certificate"] for site in self.sites if site.get("certificate")]
        said = []
        if "failed" in certificates:
            said.append("a certificate failed")
        elif certificates:
            said.append("certified bit for bit")
        for one in self.parity:
            said.append(f"outputs {'agree' if one['passed'] else 'differ'} in {one['backend']}")
        return ", ".join(said)

    def _gained(self) -> str:
        return "; ".join(
            f"{float(one['ratio']):.2f} times as fast in {one['runtime']} on {one['machine']}"
            for one in self.latency
            if one.get("ratio")
        )

    def notes_on(self, site: Part) -> list[str]:
        """What targets say of a site, in their own words."""
        said = [
            f"{one['target']}: {_VERDICTS[one['verdict']]}{_told(one)}"
            for one in site.get("targets") or ()
        ]
        if note := site.get("target_note"):
            said.append(f"{note['mark']} for {', '.join(note['targets'])}: {note['text']}")
        if dla := site.get("dla"):
            for when in ("exported", "rewritten"):
                said += [f"DLA, {when}: {one['text']}" for one in dla.get(when) or ()]
        return said

    def change_of(self, site: Part) -> Part | None:
        """The nodes that were replaced for a site; None if the document has none."""
        changes: Sequence[Part] = self.details.get("changes", ())
        return next((one for one in changes if site["id"] in one["sites"]), None)

    def phases_of(self, site: Part) -> tuple[phases.Grid, ...]:
        """The grids of the site's kernel; nothing if the document has no phases of it."""
        found: Sequence[Part] = self.details.get("phases", ())
        return next((phases.grids(one) for one in found if one["site"] == site["id"]), ())

    def detail_of(self, output: Part) -> Part | None:
        """How the differences of an output are spread; None if the document does not say."""
        found: Sequence[Part] = self.details.get("outputs", ())
        return next((one for one in found if one["name"] == output["name"]), None)


def embedded(document: Part) -> str:
    """Return the page as an HTML frame, so that its style does not change that of a notebook."""
    source = html.escape(render(document), quote=True)
    return f'<iframe srcdoc="{source}" width="100%" height="{_FRAME}" frameborder="0"></iframe>'


def write(path: Path, document: Part) -> None:
    """Render ``document`` to ``path``; the file appears whole or not at all.

    Raises UsageError if it cannot be written; what the command wrote before stays.
    """
    text = render(document)
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsageError(f"--report {path}: cannot be written ({error.strerror})") from error


def render(document: Part) -> str:
    """Return the page for a document that a command printed with ``--json``.

    Raises:
        UsageError: a library is missing, or the document is none of deployconv's.
    """
    require_libraries()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters |= {"one_line": one_line, "ms": _milliseconds, "size": _size}
    environment.globals |= {"plots": plots, "lay_out": drawing.lay_out, "box_width": drawing.WIDTH}
    try:
        cards = cards_of(document)
        return environment.get_template("page.html.jinja").render(
            cards=cards,
            css=_source("page.css"),
            tool=document["tool"],
            title=cards[0].title if len(cards) == 1 else count(cards, "model"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"the JSON is none that deployconv printed ({type(error).__name__}: {error})"
        ) from error


def cards_of(document: Part) -> list[Card]:
    """Return one card per model of the document of any command."""
    if "models" in document:
        models = document["models"]
        if "latency" in document:
            return [Card(" and ".join(map(one_line, models)), latency=document["latency"])]
        return [_checked(model) for model in models]
    if "sites" not in document and "parity" in document:
        return [Card("two models compared", parity=document["parity"], details=_details(document))]
    title = one_line(document["model"]["path"] or "model in memory")
    if "sites" not in document:
        built = {"runtime": document["runtime"], "targets": document["targets"]}
        return [Card(title, compiled=built, source=document["model"])]
    return [
        Card(
            title,
            sites=document["sites"],
            parity=_listed(document.get("parity")),
            latency=_listed(document.get("latency")),
            details=_details(document),
            not_run=document.get("not_run", ()),
            warnings=document.get("warnings", ()),
            compiled=document.get("compiled"),
            output=document.get("output"),
            message=document.get("message"),
            source=document["model"],
            targets=document.get("targets") or (),
        )
    ]


def _checked(model: Part) -> Card:
    return Card(
        one_line(model["path"]),
        sites=model.get("sites", ()),
        parity=_listed(model.get("parity")),
        latency=_listed(model.get("latency")),
        not_run=model.get("not_run", ()),
        status=model["status"],
        message=model.get("message"),
    )


def _told(judged: Part) -> str:
    """The text and the stage of what a target does with a layer, if it has any."""
    stage = f" ({judged['stage']})" if judged.get("stage") else ""
    return f"{stage}: {judged['text']}" if judged.get("text") else stage


def _listed(part: Any) -> Sequence[Part]:
    return part if isinstance(part, list) else [part] if part else []


def _details(document: Part) -> Part:
    details: Part = document.get("details") or {}
    return details


def _source(name: str) -> str:
    return (files(__package__ or "deployconv.report.page") / name).read_text(encoding="utf-8")


def _milliseconds(value: Any) -> str:
    return milliseconds(float(value))


def _size(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"
