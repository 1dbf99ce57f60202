"""The pages of ``docs/`` that are made from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .forms import FORMS
from .record import EXPORTED, Record, Run
from .resizes import RESIZES
from .runs import SPELLINGS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "targets-matrix.md"
_SIGNS: Mapping[str, str] = {
    "right": "R",
    "converted": "C",
    "refused": "X",
    "misread": "**W**",
    "crashed": "D",
}
_HEAD = """# What toolchains do with upsampling layers

`python scripts/target_matrix.py --tables` writes this page from the runs that are recorded in
`tests/targets/recorded`, one file per target, with the toolchain's message for each refusal.
`python scripts/target_matrix.py NAME` repeats the runs of a target whose toolchain is installed
(`deployconv target install NAME`).

Each of the 43 *test layers* is a model of one layer (`scripts/matrix/forms.py`). The toolchain
converts it and runs it, on the CPU or in a simulator. Then the output is compared with that of
onnxruntime. *Right* means: within 1e-4 of the largest value of the output (1e-3 for MNN, 1e-2
where a device computes in float16, and a quantization step more for quantized layers). For devices
of 8 bits it means: the root mean square of the difference is below 0.3 of that of the output (0.03
for the Ethos-U). This finds wrong pixels, but not the errors of 8-bit rounding. *Converted* means
that the toolchain took the layer, and nothing here executes the result.

In the names of the test layers, `k4s2p1` is a ConvTranspose with kernel 4, stride 2 and pads of 1;
`op` is output_padding, `dil` dilation, `d1` and `d3` are one and three dimensions, `dw` is
depthwise, `g4` has four groups, `s21` has the strides 2 and 1. `dynhw` and `dynn` have dynamic
sizes and a dynamic batch, `ps` is a pixel shuffle, `d2s` a DepthToSpace.

## Before and after

| target | toolchain | run | as exported | `rewrite` | `rewrite --target NAME` |
| --- | --- | --- | --- | --- | --- |
"""
_FORMS = """
## By test layer

The first sign is for the layer as exported, the second for the layer after `rewrite --target NAME`.
One sign stands where both are the same. R: right. C: converted. X: refused. **W**: wrong, without
an error: the target misreads it. D: the process died.

"""
_SPELLED = """
## By form and shuffle

How many test layers are right, of those that can be written in this form and shuffle. `-` where it
was not run.

"""
_RESIZES = """
## Resizes

`python scripts/target_matrix.py NAME --resizes` runs 46 Resizes (`scripts/matrix/resizes.py`), and
`python scripts/web_matrix.py --resizes` runs those of onnxruntime-web. A name has the mode (linear,
cubic, nearest), the coordinates (`half_pixel`, `pytorch_half_pixel`, `align_corners`, `asymmetric`,
`half_pixel_symmetric`, `tf_half_pixel_for_nn`), and what is special, such as a factor; without one
the factor is 2. What is not right after the rewrite is listed with the reason
`unsupported-on-target`. For `tensorrt`, `python scripts/tensorrt_matrix.py --resizes` built them
for compute capability 8.9, without a GPU. Its one wrong Resize is seen in the coordinates of the
parsed layer.

| target | toolchain | run | as exported | `rewrite --target NAME` |
| --- | --- | --- | --- | --- |
"""
_RESIZE_NAMES = """
In the names of the Resizes, `lin`, `cub` and `near` are the modes linear, cubic and nearest. The
coordinates are `hp`, half_pixel; `php`, pytorch_half_pixel; `ac`, align_corners; `asym`,
asymmetric; `hps`, half_pixel_symmetric; `tf`, tf_half_pixel_for_nn. `f1.55` is the factor 1.55,
`down` is 0.5, `down.6` is 0.6; without one of these the factor is 2 (1.55 for `lin_hps`, 1.75 for
`near_ac`). `sizes` has sizes in place of a factor, `len1` makes one row, `aa` has antialias, `a.5`
the coefficient -0.5, `exc` exclude_outside, `1d` and `3d` have one and three axes, `dyn` has
dynamic sizes.

"""
_NOT_RUN = """
## Not run

"""


def page(records: Mapping[str, Record], resizes: Mapping[str, Record]) -> str:
    """The whole page, of the records of the forms and of the Resizes."""
    run = {name: record for name, record in records.items() if record.runs}
    idle = {name: record for name, record in records.items() if not record.runs}
    before_and_after = (_summary(one, EXPORTED, "default", "target") for one in run.values())
    lines = [_HEAD + "\n".join(before_and_after), _FORMS + "\n".join(_forms(run, FORMS))]
    lines.append(_SPELLED + "\n".join(_spelled(run)))
    lines.append(
        _RESIZES + "\n".join(_summary(one, EXPORTED, "target") for one in resizes.values())
    )
    lines.append(_RESIZE_NAMES + "\n".join(_forms(resizes, RESIZES)))
    if idle:
        rows = (f"- {name}: {record.not_run}" for name, record in idle.items())
        lines.append(_NOT_RUN + "\n".join(rows))
    return "\n".join(lines) + "\n"


def _summary(record: Record, *spellings: str) -> str:
    counts = (_counted(record, spelling) for spelling in spellings)
    return f"| `{record.target}` | {record.version} | {record.date} | {' | '.join(counts)} |"


def _counted(record: Record, spelling: str) -> str:
    """How often each outcome is: ``38 right, 4 refused, 1 wrong``."""
    found: Counter[str] = Counter(run.outcome for run in record.runs if run.spelling == spelling)
    names = {"misread": "wrong", "crashed": "died"}
    return ", ".join(f"{found[one]} {names.get(one, one)}" for one in _SIGNS if found[one]) or "-"


def _forms(records: Mapping[str, Record], forms: Iterable[str]) -> Iterator[str]:
    yield f"| test layer | {' | '.join(records)} |"
    yield f"| --- |{' --- |' * len(records)}"
    for form in forms:
        cells = (
            _change(record.of(form, EXPORTED), record.of(form, "target"))
            for record in records.values()
        )
        yield f"| {form} | {' | '.join(cells)} |"


def _change(before: Run | None, after: Run | None) -> str:
    signs = [_SIGNS[run.outcome] for run in (before, after) if run is not None]
    return " ".join(dict.fromkeys(signs)) or "-"


def _spelled(records: Mapping[str, Record]) -> Iterator[str]:
    yield f"| target | {' | '.join(SPELLINGS)} |"
    yield f"| --- |{' --- |' * len(SPELLINGS)}"
    for name, record in records.items():
        cells = (_share(record.runs, spelling) for spelling in SPELLINGS)
        yield f"| `{name}` | {' | '.join(cells)} |"


def _share(runs: Iterable[Run], spelling: str) -> str:
    outcomes = [run.outcome for run in runs if run.spelling == spelling]
    return f"{outcomes.count('right')} of {len(outcomes)}" if outcomes else "-"
