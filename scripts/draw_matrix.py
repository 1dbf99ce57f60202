"""Draw the matrices of a linear and of a cubic Resize by 2, for the page of interpolating Resizes.

    python scripts/draw_matrix.py            write docs/figures/resampling-matrix.svg

The weights are those of `deployconv.resampling`. A row is an output, a column an input; rows of one
phase have one colour, and the border rows show that the pixel at the edge is read more than once.
"""

from __future__ import annotations

from pathlib import Path

from deployconv.resampling import Interpolation, resampling_matrix

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "resampling-matrix.svg"

INPUTS, FACTOR = 6, 2
CELL, GAP, LEFT, TOP = 44, 76, 56, 64
ROW = 24
COLOURS = ("blue", "red")
"""By phase."""

STYLE = """
.paper { fill: #ffffff; }
.ink, .value { fill: #1f2430; }
.note { fill: #5b6472; }
.ink, .note { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; }
.ink { font-weight: 600; }
.value { font: 10px ui-monospace, 'SFMono-Regular', Menlo, 'DejaVu Sans Mono', monospace; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.blue { fill: #5b9df5; }
.red { fill: #f0787c; }
.zero { fill: #eef0f4; }
@media (prefers-color-scheme: dark) {
.paper { fill: #14171d; }
.ink, .value { fill: #e8ebf0; }
.note { fill: #a3acba; }
.zero { fill: #232833; }
}
"""


def drawn_matrix(mode: str, left: int) -> list[str]:
    """The cells and labels of one matrix whose first column begins at ``left``."""
    how = Interpolation(mode)  # type: ignore[arg-type]
    weights = resampling_matrix(INPUTS, INPUTS * FACTOR, FACTOR, how)
    middle = left + INPUTS * CELL // 2
    parts = [
        f'<text class="ink middle" x="{middle}" y="24">{mode}, half_pixel, x{FACTOR}</text>',
        f'<text class="note middle" x="{middle}" y="{TOP - 22}">input</text>',
    ]
    for column in range(INPUTS):
        x = left + column * CELL + CELL // 2
        parts.append(f'<text class="note middle" x="{x}" y="{TOP - 6}">{column}</text>')
    for row, line in enumerate(weights):
        y, colour = TOP + row * ROW, COLOURS[row % FACTOR]
        parts.append(f'<text class="note end" x="{left - 8}" y="{y + 16}">{row}</text>')
        for column, weight in enumerate(line):
            kind = f'class="{colour}" fill-opacity="{0.25 + 0.6 * abs(weight):.2f}"'
            kind = kind if weight else 'class="zero"'
            x = left + column * CELL
            parts.append(
                f'<rect {kind} x="{x}" y="{y}" width="{CELL - 2}" height="{ROW - 2}" rx="2"/>'
            )
            if weight:
                text = f"{weight:.3f}".rstrip("0").replace("0.", ".", 1)
                parts.append(
                    f'<text class="value middle" x="{x + CELL // 2 - 1}" y="{y + 15}">{text}</text>'
                )
    return parts


def picture() -> str:
    """Both matrices side by side, as SVG."""
    second = LEFT + INPUTS * CELL + GAP
    width, height = second + INPUTS * CELL + 16, TOP + INPUTS * FACTOR * ROW + 40
    note = "Rows of one colour are one phase: the same weights, one column further each time."
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *drawn_matrix("linear", LEFT),
        *drawn_matrix("cubic", second),
        f'<text class="note middle" x="{width // 2}" y="{height - 14}">{note}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FIGURE.write_text(picture(), encoding="utf-8")
