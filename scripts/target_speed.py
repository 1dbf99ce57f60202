"""Compare the larger decoders of `zoo.large`, as exported and rewritten for a target.

    python scripts/target_speed.py rk3588          by the compiler's estimate of cycles
    python scripts/target_speed.py esp32p4         by the multiplications
    python scripts/target_speed.py iree --runs 20  by the time of interleaved runs
    python scripts/target_speed.py esp32p4 --layers
                                                   the upsampling layers of each alone, added up

A ratio above 1 says that the rewritten model is faster. Needs torch and onnxscript; the toolchain
has to be installed: ``deployconv target install NAME``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from math import exp, log
from pathlib import Path

import onnx
from matrix.arguments import installed_toolchain, new_parser, status_of
from zoo.alone import layers_alone
from zoo.export import export
from zoo.large import DECODERS, LARGE

import deployconv
from deployconv.options import FeedOptions
from deployconv.proof.inputs import make_feeds
from deployconv.runtimes.shapes import input_specs, output_specs
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import Toolchain
from deployconv.runtimes.worker_process import Limits
from deployconv.targets.catalogue import find_target

COUNTED = ("cycles", "multiplications")
"""Notes of a toolchain that say more than a time on this machine."""
_LIMITS = Limits(seconds=900)


def compared(
    target: str, toolchain: Toolchain, python: Path, original: onnx.ModelProto, runs: int
) -> tuple[float, float, str]:
    """What the original and the rewritten model take, and in which unit."""
    feeds = make_feeds(input_specs(original), FeedOptions()).arrays
    shapes = {name: array.shape for name, array in feeds.items()}
    dynamic = any(not spec.is_static for spec in input_specs(original))
    result = deployconv.rewrite(
        original, target=target, verify=False, bench=False, shape=shapes if dynamic else {}
    )
    assert result.model is not None
    outputs = [spec.name for spec in output_specs(original)]
    platform = toolchain.targets[target].platform
    with (
        ToolchainProcess(toolchain, python, _LIMITS, platform) as before,
        ToolchainProcess(toolchain, python, _LIMITS, platform) as after,
    ):
        notes = [
            process.convert(model.SerializeToString(), feeds, outputs).notes
            for process, model in ((before, original), (after, result.model))
        ]
        for unit in COUNTED:
            if unit in notes[0]:
                return notes[0][unit], notes[1][unit], unit
        times = _interleaved(before, after, runs)
    return (*times, "ms")


def compared_alone(
    target: str, toolchain: Toolchain, python: Path, original: onnx.ModelProto, runs: int
) -> tuple[float, float, str]:
    """What the upsampling layers of a model take, as `compared`, each run as a model, added up."""
    feeds = make_feeds(input_specs(original), FeedOptions()).arrays
    shapes = {name: array.shape for name, array in feeds.items()}
    before, after, unit = 0.0, 0.0, ""
    for name, layer in layers_alone(original, shapes):
        one, other, unit = compared(target, toolchain, python, layer, runs)
        print(f"  {name}: {one:,.4g} -> {other:,.4g} {unit}, {one / other:.2f}", flush=True)
        before, after = before + one, after + other
    return before, after, unit


def _interleaved(
    before: ToolchainProcess, after: ToolchainProcess, runs: int
) -> tuple[float, float]:
    """The median time of each, run in turns after one run that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for process, kept in zip((before, after), times, strict=True):
            (once,) = process.milliseconds(1)
            if turn:
                kept.append(once)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, default=10, help="timed runs of each model")
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--all", action="store_true", help="single layers too")
    parser.add_argument("--layers", action="store_true", help="only the upsampling layers of each")
    chosen = parser.parse_args()
    measured = compared_alone if chosen.layers else compared
    toolchain, python = installed_toolchain(chosen.target)
    ratios: dict[str, float] = {}
    newest = find_target(chosen.target).takes.max_opset
    for sample in LARGE if chosen.all else DECODERS:
        if not fnmatch(sample.name, chosen.only):
            continue
        try:
            model = export(replace(sample, opset=min(sample.opset, newest or sample.opset)))
            before, after, unit = measured(chosen.target, toolchain, python, model, chosen.runs)
        except Refusal as refusal:
            print(f"{sample.name}: {refusal}", flush=True)
            continue
        ratios[sample.name] = before / after
        print(
            f"{sample.name}: {before:,.4g} -> {after:,.4g} {unit}, {before / after:.2f}", flush=True
        )
    _summarise(ratios)
    return 0


def _summarise(ratios: Mapping[str, float]) -> None:
    if ratios:
        mean = exp(sum(map(log, ratios.values())) / len(ratios))
        print(f"{len(ratios)} models: geometric mean {mean:.2f}, lowest {min(ratios.values()):.2f}")


if __name__ == "__main__":
    sys.exit(status_of(main))
