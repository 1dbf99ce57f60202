"""The table of what TensorRT-RTX makes of the sample models, as exported and rewritten.

    python scripts/tensorrt_table.py            Markdown on standard output
    python scripts/tensorrt_table.py MODEL...   for other models

Compile evidence: nothing is executed. It needs TensorRT-RTX (pip install 'deployconv[rtx]') and no
GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from matrix.arguments import new_parser, status_of

import deployconv
from deployconv.results import Compilation, TargetBuild

TARGETS = ("sm86", "sm89")
MODELS = Path(__file__).parents[1] / "models"
HEADER = ("model", *TARGETS, "kernels", "weights, kB", "activations, MB", "engine, kB")


def main() -> int:
    """Print the table of the models that are named, or of the sample models."""
    parser = new_parser(__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="default: models/")
    models = parser.parse_args().models or sorted(MODELS.glob("*.onnx"))
    rows, notes = [], []
    runtime = ""
    for model in models:
        done = deployconv.rewrite(model, target=TARGETS, verify=False, bench=False)
        assert done.compiled is not None
        runtime = done.compiled.after.runtime
        rows.append((model.stem, *cells(done.compiled)))
        if done.compiled.before.note:
            notes.append(f"{model.stem} {_shapes(done.compiled)}")
    print(_line(HEADER), _line(["---"] * len(HEADER)), *map(_line, rows), sep="\n")
    figures = f"Figures are those of {TARGETS[-1].upper()}, as exported -> rewritten"
    print(f"\n{runtime}. {figures}.", end="")
    print(f" Dynamic sizes: {'; '.join(notes)}." if notes else "")
    return 0


def cells(compiled: Compilation) -> Iterable[str]:
    """What the table says of one model."""
    for before, after in compiled.pairs:
        yield f"{_verdict(before)} -> {_verdict(after)}"
    before, after = compiled.pairs[-1]
    yield _pair(_kernels(before), _kernels(after))
    yield _pair(before.weights_bytes, after.weights_bytes, 1e3)
    yield _pair(before.activation_bytes, after.activation_bytes, 1e6, 2)
    yield _pair(before.engine_bytes, after.engine_bytes, 1e3)


def _verdict(built: TargetBuild) -> str:
    return "builds" if built.builds else "**fails**"


def _kernels(built: TargetBuild) -> int | None:
    return None if built.kernels is None else len(built.kernels)


def _pair(before: int | None, after: int | None, unit: float = 1, decimals: int = 0) -> str:
    one, other = (
        "-" if size is None else f"{size / unit:,.{decimals}f}" for size in (before, after)
    )
    return f"{one} -> {other}"


def _shapes(compiled: Compilation) -> str:
    return ", ".join("x".join(map(str, bound.opt)) for bound in compiled.before.shapes)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(status_of(main))
