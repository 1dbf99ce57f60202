"""The plots of the page, drawn by matplotlib as inline SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import TYPE_CHECKING, Any

from deployconv.report.lines import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Sequence[float]

_INK, _LINE = "#010203", "#040506"
"""Stand for the page's own colours of text and of thin lines until the SVG is written."""
_BEFORE, _AFTER = "#c8553d", "#2a7fb8"
_GREY = "#8a93a1"
_PALETTE = (_AFTER, "#4fa36b", "#9d7bea", "#d9a03f", "#d0679b", "#5aa9a4")
_WIDTH = 7.2
_LONGEST_NAME = 44
_CROWDED = 2.5
"""What is this many times the median, or the best ratio, is cut off, as it would hide the rest."""
_MOST_LAYERS = 6
"""Sites that have a colour of their own in the bars of the layers."""


def candidates(entries: Sequence[Mapping[str, Any]], label: str) -> str:
    """Plot the forms of one site: ratios with their intervals, or predicted times as bars."""
    timed = [one for one in entries if "ratio" in one]
    shown = timed or list(entries)
    figure, axes = _figure(0.5 + 0.28 * len(shown))
    names = [_short(one["name"]) + (" (taken)" if one["chosen"] else "") for one in shown]
    for row, one in enumerate(shown):
        colour = _AFTER if one["chosen"] else _GREY
        if timed:
            low, high, ratio = (_number(one[key]) for key in ("low", "high", "ratio"))
            axes.plot([low, high], [row, row], color=colour, linewidth=2)
            axes.plot([ratio], [row], "o", color=colour, markersize=5)
        else:
            axes.barh(row, _number(one["predicted_ms"]), color=colour, height=0.6)
    if timed:
        highest = max(1.2, _CROWDED * max(_number(one["ratio"]) for one in timed))
        axes.set_xlim(0, min(highest, max(1.2, *(1.05 * _number(one["high"]) for one in timed))))
        axes.axvline(1, color=_LINE, linewidth=1)
    axes.set_xlabel(
        "time as it was / time in this form, 95 % interval" if timed else "predicted ms"
    )
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    return _svg(figure, label)


def times(latency: Mapping[str, Any], label: str) -> str:
    """Plot every counted run of one or two models in the order in which they were taken."""
    figure, axes = _figure(2.3)
    runs = latency["times_ms"]
    for taken, colour, name in zip(runs, (_BEFORE, _AFTER), ("before", "after"), strict=False):
        axes.plot(range(1, len(taken) + 1), taken, ".", color=colour, markersize=3)
        middle = median(taken)
        shown = name if len(runs) > 1 else "model"
        axes.axhline(middle, color=colour, linewidth=1.2, label=f"{shown}, median")
    highest = _CROWDED * max(median(taken) for taken in runs)
    beyond = sum(ms > highest for taken in runs for ms in taken)
    axes.set_xlabel(f"run; {beyond} of {sum(map(len, runs))} took longer" if beyond else "run")
    axes.set_ylabel("ms")
    axes.set_ylim(0, highest if beyond else None)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    return _svg(figure, label)


def histogram(detail: Mapping[str, Any], tolerance: float, label: str) -> str:
    """Plot how many elements differ by how much, by powers of ten, with the tolerance."""
    figure, axes = _figure(1.9)
    names = ["equal", *(f"1e{exponent}" for exponent in detail["exponents"])]
    counts = [detail["equal"], *detail["counts"]]
    colours = [_GREY, *[_AFTER] * len(detail["counts"])]
    for place, exponent in enumerate(detail["exponents"], start=1):
        if 10.0**exponent > tolerance:
            colours[place] = _BEFORE
    axes.bar(range(len(counts)), counts, color=colours, width=0.8)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("elements")
    axes.set_xlabel("difference of at least")
    return _svg(figure, label)


def maps(detail: Mapping[str, Any], label: str) -> str:
    """Draw one plane of both outputs on one scale, and their difference on its own."""
    from matplotlib.figure import Figure

    found = detail["maps"]
    figure = Figure(figsize=(_WIDTH, 2.5), layout="constrained")
    panels = figure.subplots(1, 3)
    planes = [_plane(found[name]) for name in ("reference", "candidate", "difference")]
    finite = [value for plane in planes[:2] for row in plane for value in row if value == value]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    titles = ("original", "rewritten", "absolute difference")
    for axes, plane, title in zip(panels, planes, titles, strict=True):
        own = title == "absolute difference"
        image = axes.imshow(
            plane,
            cmap="magma" if own else "viridis",
            vmin=0 if own else low,
            vmax=max(map(max, plane)) or 1.0 if own else high,
            interpolation="nearest",
        )
        axes.set_title(title, fontsize=10, color=_INK)
        axes.set_xticks([])
        axes.set_yticks([])
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)
        bar.ax.tick_params(labelsize=8, colors=_INK)
        bar.ax.yaxis.get_offset_text().set_color(_INK)
        bar.outline.set_visible(False)
    return _svg(figure, label)


def layers(profiles: Sequence[Mapping[str, Any]], label: str) -> str:
    """Draw the time of both models as stacked bars: one part per site, the rest in grey."""
    figure, axes = _figure(0.9 + 0.45 * len(profiles))
    totals: dict[str, float] = {}
    for profile in profiles:
        for group in profile["sites"]:
            if group["sites"]:
                key = ", ".join(group["sites"])
                totals[key] = totals.get(key, 0.0) + _number(group["ms"])
    largest = sorted(totals, key=lambda key: -totals[key])[:_MOST_LAYERS]
    labelled: set[str] = set()
    for row, profile in enumerate(profiles):
        start = 0.0
        parts = {tuple(group["sites"]): _number(group["ms"]) for group in profile["sites"]}
        named = {", ".join(sites): ms for sites, ms in parts.items() if sites}
        shares = [(key, named.get(key, 0.0)) for key in largest]
        others = sum(ms for key, ms in named.items() if key not in largest)
        shares += [("other sites", others), ("other layers", parts.get((), 0.0))]
        for place, (key, ms) in enumerate(shares):
            if ms <= 0:
                continue
            colour = _PALETTE[place] if place < len(largest) else _GREY
            legend = None if key in labelled else _short(key)
            labelled.add(key)
            faint = 0.45 if key == "other layers" else 1.0
            axes.barh(row, ms, left=start, color=colour, alpha=faint, height=0.6, label=legend)
            start += ms
    axes.set_yticks(range(len(profiles)), ["before", "after"][: len(profiles)])
    axes.invert_yaxis()
    axes.set_xlabel("ms, each layer timed by itself")
    legend_box = figure.legend(
        loc="outside lower center", frameon=False, labelcolor=_INK, fontsize=8, ncols=2
    )
    for text in legend_box.get_texts():
        text.set_parse_math(False)
    return _svg(figure, label)


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(_LINE)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(axis="x", color=_LINE, linewidth=0.4)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, label: str) -> str:
    """The figure as SVG with the page's font and colours; ``label`` is its text alternative."""
    import matplotlib as mpl

    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(_INK, "currentColor").replace(_LINE, "var(--line)")
    text = re.sub(r"font(-family)?: [^;\"]*sans-serif[^;\"]*", _fonts, text)
    head = f'<svg role="img" aria-label="{escape(one_line(label))}" class="plot"'
    return head + text.removeprefix("<svg")


def _fonts(found: re.Match[str]) -> str:
    """The same declaration with the page's font, its size kept."""
    size = re.search(r"\d+(\.\d+)?px", found.group())
    return f"font: {size.group()} inherit" if size else "font-family: inherit"


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= _LONGEST_NAME else f"...{text[3 - _LONGEST_NAME :]}"


def _number(value: Any) -> float:
    """A number of the document, in which NaN and infinity are words."""
    return float(value)


def _plane(rows: Sequence[Sequence[Any]]) -> list[list[float]]:
    return [[_number(value) for value in row] for row in rows]
