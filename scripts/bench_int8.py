"""Measure how much faster a rewrite makes quantized models (Q/DQ).

    python scripts/bench_int8.py                              everything: about half an hour
    python scripts/bench_int8.py --quick --only 'conv*'       a few models, briefly
    python scripts/bench_int8.py --policy fastest --json bench.json

Exports the decoders of `zoo.large` and the smallest possible ones (Conv, ConvTranspose, Conv),
quantizes them with onnxruntime's ``quantize_static`` (int8, weights per channel) and rewrites the
quantized models. Ratios are measured as in ``bench_ort.py``; above 1, the rewritten model is
faster. The error is the root mean square of the difference from the float model's output, relative
to the root mean square of that output, original -> rewritten. Needs torch.
"""

from __future__ import annotations

import sys

from bench import command
from bench.integers import benchmark
from bench.process import in_own_process
from bench.subjects import Subject, decoders


def _subjects() -> list[Subject]:
    found: list[Subject] = in_own_process(decoders)
    return found


BENCHMARK = benchmark(
    __doc__, {"decoders": _subjects}, ("all", "fastest"), "quantize, then rewrite"
)

if __name__ == "__main__":
    sys.exit(command.main(BENCHMARK))
