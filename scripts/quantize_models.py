"""Rewrite, then quantize: the sample models quantized as exported and as rewritten, in turns.

    python scripts/quantize_models.py
    python scripts/quantize_models.py --only 'dcgan*' --threads 2 --json quantized.json

For those who quantize in their own pipeline and want its Convs to find integers. Takes the
float32 models of ``models/`` whose shapes are static, quantizes both forms in the same way
(onnxruntime's ``quantize_static``, int8, weights per channel, Q/DQ, the same calibration inputs)
and compares latency and error as ``bench_int8.py`` does.
"""

from __future__ import annotations

import sys

from bench import command
from bench.integers import benchmark
from bench.subjects import float_samples

BENCHMARK = benchmark(__doc__, {"samples": float_samples}, ("all",), "rewrite, then quantize")

if __name__ == "__main__":
    sys.exit(command.main(BENCHMARK))
