"""Draw the picture of the README: one layer as zero insertion, and as Conv + DepthToSpace.

    python scripts/draw_phases.py            write docs/figures/phases.svg

The layer is that of the reference question (see `reference_question`): a 4x4 input, zeros
inserted between its pixels, a Conv of 4x4 taps. Which tap belongs to which phase, where it
reads, and what is cropped all come from `deployconv.polyphase`; here stand only positions and
colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from xml.etree import ElementTree

from deployconv.polyphase import Axis, smallest_kernel

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "phases.svg"

AXIS = Axis(stride=2, taps=4, step=1, origin=0, extra=-2)
"""Output ``o`` reads ``x[(o + t) / 2]`` through tap ``t``: zero insertion, Conv without pads."""
FORM = smallest_kernel(AXIS)
SIZE = 4
"""Input pixels along each axis."""
TRACED = (0, 1)
"""The output pixel that is followed through both ways."""

COLOURS = {(0, 0): "purple", (0, 1): "blue", (1, 0): "green", (1, 1): "red"}
"""By phase (row, column), as the question has them."""

WIDTH, HEIGHT, CELL = 848, 600, 22

STYLE = """
.paper { fill: #ffffff; }
.ink, .name { fill: #1f2430; }
.note { fill: #5b6472; }
.ink, .note { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; }
.ink { font-weight: 600; }
.name { font: 10px ui-monospace, 'SFMono-Regular', Menlo, 'DejaVu Sans Mono', monospace; }
.faint + .name { fill: #5b6472; }
.middle { text-anchor: middle; }
.pixel { fill: #9aa4b2; }
.zero { fill: #eef0f4; }
.purple { fill: #9d7bea; }
.blue { fill: #5b9df5; }
.green { fill: #4fb783; }
.red { fill: #f0787c; }
.faint { fill-opacity: 0.32; }
.cropped { fill-opacity: 0.16; }
.traced { fill: none; stroke: #1f2430; stroke-width: 1.8; }
.flow { fill: none; stroke: #8a93a1; stroke-width: 1.4; }
.head { fill: #8a93a1; }
.window { fill: none; stroke: #5b6472; stroke-width: 1.4; stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
.paper { fill: #14171d; }
.ink { fill: #e8ebf0; }
.note { fill: #a3acba; }
.name { fill: #0d1016; }
.faint + .name { fill: #b9c1cd; }
.zero { fill: #232833; }
.pixel { fill: #7d8796; }
.faint { fill-opacity: 0.5; }
.cropped { fill-opacity: 0.25; }
.traced { stroke: #ffffff; }
.window { stroke: #a3acba; }
}
"""

Pair = tuple[int, int]
"""(row, column)."""


@dataclass(frozen=True)
class Cell:
    """One square: its CSS classes, what is written in it, whether it is on the traced path."""

    kind: str
    label: str = ""
    traced: bool = False


def colour(row: int, column: int) -> str:
    """Colour of an output pixel."""
    return COLOURS[row % AXIS.stride, column % AXIS.stride]


def reads(index: int) -> dict[int, int]:
    """Along one axis: kernel tap -> input index, for every tap of output ``index`` that reads."""
    start, phase = divmod(index, AXIS.stride)
    offsets = {tap: AXIS.offset(0, phase, tap) for tap in range(AXIS.taps)}
    return {tap: start + offset for tap, offset in offsets.items() if offset is not None}


def phase_of(tap: int) -> int:
    """Along one axis: the phase that ``tap`` belongs to."""
    (phase,) = (phase for phase in range(AXIS.stride) if tap in reads(phase))
    return phase


def input_cell(row: int, column: int) -> Cell:
    traced = row in reads(TRACED[0]).values() and column in reads(TRACED[1]).values()
    return Cell("pixel", traced=traced)


def spread_cell(row: int, column: int) -> Cell:
    """The input with zeros between, the kernel laid on it where it makes `TRACED`."""
    is_pixel = all(at % AXIS.stride == 0 and at // AXIS.stride < SIZE for at in (row, column))
    tap = row - TRACED[0], column - TRACED[1]
    if not all(0 <= t < AXIS.taps for t in tap):
        return Cell("pixel" if is_pixel else "zero")
    kind = colour(phase_of(tap[0]), phase_of(tap[1]))
    met = all(t in reads(at) for t, at in zip(tap, TRACED, strict=True))
    return Cell(kind if met else f"{kind} faint", f"{tap[0]}{tap[1]}", traced=met)


def output_cell(row: int, column: int) -> Cell:
    return Cell(colour(row, column), traced=(row, column) == TRACED)


def kernel_cell(channel: Pair, row: int, column: int) -> Cell:
    """Place ``[row, column]`` of the 2x2 kernel of ``channel``: the tap that stands there."""
    where = FORM.tap_at()
    tap = [int(where[q, at].argmax()) for q, at in zip(channel, (row, column), strict=True)]
    traced = all(t in reads(at) for t, at in zip(tap, TRACED, strict=True))
    return Cell(colour(*map(phase_of, tap)), f"{tap[0]}{tap[1]}", traced)


def shuffled_cell(row: int, column: int) -> Cell:
    """After DepthToSpace: the output stands behind `FORM.shift` rows and columns."""
    at = row - FORM.shift, column - FORM.shift
    if all(0 <= index < AXIS.output_size(SIZE) for index in at):
        return output_cell(*at)
    return Cell(f"{colour(*at)} cropped")


def channel_cell(channel: Pair, row: int, column: int) -> Cell:
    """Before DepthToSpace, which puts ``[row, column]`` of ``channel`` at s*row, s*column."""
    return shuffled_cell(AXIS.stride * row + channel[0], AXIS.stride * column + channel[1])


class Drawing:
    """An SVG that is written from the back to the front."""

    def __init__(self) -> None:
        self.root = ElementTree.Element(
            "svg",
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            width=str(WIDTH),
            height=str(HEIGHT),
            role="img",
        )
        self.add("title").text = "One layer, two ways: zero insertion, and Conv + DepthToSpace"
        self.add("style").text = STYLE
        self.add("rect", "paper", width=WIDTH, height=HEIGHT, rx=10)

    def add(self, tag: str, kind: str = "", **attributes: float | str) -> ElementTree.Element:
        given = {
            name: f"{value:g}" if not isinstance(value, str) else value
            for name, value in attributes.items()
        }
        return ElementTree.SubElement(self.root, tag, {"class": kind} if kind else {}, **given)

    def text(self, x: float, y: float, words: str, kind: str = "note") -> None:
        self.add("text", kind, x=x, y=y).text = words

    def grid(
        self, x: float, y: float, size: int, cell: Callable[[int, int], Cell], edge: int = CELL
    ) -> None:
        """A square of ``size`` cells of ``edge`` pixels, its corner at ``(x, y)``."""
        outlines = []
        for row, column in product(range(size), repeat=2):
            shown = cell(row, column)
            left, top = x + column * edge, y + row * edge
            box = {"x": left + 1, "y": top + 1, "width": edge - 2, "height": edge - 2, "rx": 2}
            self.add("rect", shown.kind, **box)
            if shown.label:
                self.text(left + edge / 2, top + edge / 2 + 3.5, shown.label, "name middle")
            if shown.traced:
                outlines.append(box)
        for box in outlines:
            self.add("rect", "traced", **box)

    def flow(self, path: str, x: float, y: float) -> None:
        """An arrow along ``path`` whose head points right at ``(x, y)``."""
        self.add("path", "flow", d=path)
        self.add("path", "head", d=f"M{x:g} {y:g}l-8 -4.5v9z")

    def __str__(self) -> str:
        ElementTree.indent(self.root, " ")
        return ElementTree.tostring(self.root, encoding="unicode") + "\n"


def draw() -> str:
    """The picture as SVG text."""
    drawing = Drawing()
    _input(drawing)
    _zero_insertion(drawing)
    _low_resolution(drawing)
    return str(drawing)


def _input(drawing: Drawing) -> None:
    drawing.grid(24, 261, SIZE, input_cell)
    drawing.text(68, 368, f"input {SIZE}x{SIZE}", "ink middle")
    drawing.flow("M68 253V193Q68 183 78 183H256", 264, 183)
    drawing.flow("M68 380V418Q68 428 78 428H172", 180, 428)


def _zero_insertion(drawing: Drawing) -> None:
    """The upper way: most of the pixels are zeros when the kernel comes."""
    size, taps = AXIS.output_size(SIZE), AXIS.taps
    by_zero = taps**2 - prod(len(reads(at)) for at in TRACED)
    work = f"{taps**2} multiplications for an output pixel, {by_zero} of them by zero"
    drawing.text(24, 36, "Zero insertion, then one large Conv", "ink")
    drawing.text(24, 57, work)
    drawing.text(162, 174, "insert zeros", "note middle")
    drawing.grid(268, 84, size + taps - 1, spread_cell)
    left, top = 268 + CELL * TRACED[1], 84 + CELL * TRACED[0]
    drawing.add("rect", "window", x=left, y=top, width=CELL * taps, height=CELL * taps, rx=3)
    drawing.flow("M476 183H652", 660, 183)
    drawing.text(566, 174, f"Conv {taps}x{taps}", "note middle")
    drawing.grid(670, 183 - size * CELL // 2, size, output_cell)
    drawing.text(736, 299, "= the same sums", "ink middle")


def _low_resolution(drawing: Drawing) -> None:
    """The lower way: one small kernel a phase, nothing but input pixels under it."""
    span, rows, small = FORM.span, SIZE + FORM.rows, 14
    for channel in COLOURS:
        row, column = (at * (span * CELL + 12) for at in channel)
        drawing.grid(184 + column, 378 + row, span, partial(kernel_cell, channel))
        row, column = (at * (rows * small + 12) for at in channel)
        drawing.grid(406 + column, 366 + row, rows, partial(channel_cell, channel), small)
    drawing.flow("M294 428H390", 398, 428)
    drawing.text(342, 419, f"Conv {span}x{span}", "note middle")
    drawing.flow("M538 428H632", 640, 428)
    drawing.text(586, 419, "DepthToSpace", "note middle")
    drawing.grid(648, 428 - rows * CELL, AXIS.stride * rows, shuffled_cell)
    begin, end = FORM.crop
    drawing.text(736, 534, f"crop {begin} in front, {end} behind", "note middle")
    drawing.text(24, 556, "The same taps sorted by phase: Conv, DepthToSpace, crop", "ink")
    drawing.text(24, 577, f"{span**2} multiplications for an output pixel")


def main() -> None:
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
