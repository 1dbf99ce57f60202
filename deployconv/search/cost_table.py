"""The constants of the cost model: one table per backend.

An amount of work takes the amount times a `Rate`, in milliseconds per unit. The unit depends on
the kind of work (`cost_terms.Term`): a million multiplications or elements, one node, a thousand
matrix multiplications.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from deployconv.match import UpsampleSite
from deployconv.search.cost_terms import Term, Work


@dataclass(frozen=True)
class Rate:
    """Milliseconds per unit of work.

    Attributes:
        parallel: of the part that threads share, with one thread.
        serial: of the part that does not get faster with more threads.
        each: more for every thread but the first.
    """

    parallel: float
    serial: float = 0.0
    each: float = 0.0

    def at(self, threads: int) -> float:
        """Milliseconds with this many threads."""
        return self.parallel / threads + self.serial + self.each * (threads - 1)


def _refused_by_tensorrt(site: UpsampleSite) -> bool:
    """Whether TensorRT cannot build a ConvTranspose: in bfloat16, or with stride and dilation."""
    dilated = any(step > 1 for step in site.geometry.dilation or ())
    spread = dilated and any(step > 1 for step in site.stride)
    return site.conv_transpose is not None and (spread or site.weight.dtype.name == "bfloat16")


@dataclass(frozen=True)
class CostTable:
    """The constants of one backend.

    Attributes:
        rates: by kind of work; work that has no rate takes no time.
        block: channels in a block of a blocked Conv; 0 if no Conv works on blocks.
        margin: part of the time of the layers that a form replaces that it must save to be taken,
            as the model is not exact.
        least: part of the time of the whole model that all forms together must save; less is not
            worth another graph, which may take more memory.
        fitted: False if nothing was measured.
        needed: True for a site that the backend cannot run as it is.
        most_threads: that were measured; None if nothing was.
    """

    rates: Mapping[Term, Rate]
    block: int
    margin: float
    fitted: bool
    needed: Callable[[UpsampleSite], bool] = lambda _: False
    most_threads: int | None = None
    least: float = 0.0

    def milliseconds(self, work: Work, threads: int) -> float:
        """Predicted time of ``work``."""
        return sum(
            amount * self.rates[term].at(threads)
            for term, amount in work.items()
            if term in self.rates
        )


# Fitted by scripts/fit_cost.py on an AMD EPYC with AVX-512, 2 CPUs, onnxruntime 1.32.0, with one
# thread and with two: over 812 timings the relative error is 8 % in the median, 34 % in the
# 90th percentile. ``linear``, ``cubic`` and ``antialiased`` alone were fitted on an Intel Xeon with
# AVX-512: 44 timings, 5 % and 25 %; ``linear_blocks`` was read off profiles there. What it costs to
# wake threads for small products and small linear Resizes was read off timings of small networks.
ORT_CPU = CostTable(
    rates={
        "launches": Rate(0, 6.04e-06, 0.000319),
        "forks": Rate(0, 0, 0.0118),
        "blocked": Rate(0.0174, 7e-05),
        "depthwise": Rate(0.0194, 0),
        "gemm": Rate(0.0181, 0.00171),
        "gemm_calls": Rate(0, 0.12),
        "read": Rate(0.0237, 0.0409),
        "columns": Rate(0.154, 0.0138),
        "scattered": Rate(0, 0.353),
        "scattered_nd": Rate(0.108, 0.577),
        "integer": Rate(0.00351, 0.000206),
        "integer_columns": Rate(0.0813, 0),
        "quantized": Rate(0, 0.0814),
        "integer_layout": Rate(0, 0.234),
        "weights": Rate(0.0289, 0.0307),
        "uncached": Rate(0.164, 0.0461),
        "reordered": Rate(0.182, 0),
        "reordered_part": Rate(0.236, 0.0691),
        "pointwise": Rate(0.0507, 0.0306),
        "transcendental": Rate(0.305, 0.02),
        "prelu": Rate(3.29, 0.618),
        "reduced": Rate(0.428, 0.159),
        "reduced_pages": Rate(2.04, 0.294),
        "copied": Rate(0.00836, 0.0505),
        "repeated": Rate(0, 0.0696),
        "repeated_blocks": Rate(0, 0.253),
        "linear": Rate(1.45, 0.218),
        "linear_blocks": Rate(0.75, 0.05),
        "cubic": Rate(0.62, 66.2),
        "antialiased": Rate(0.619, 0.662),
        "depth_to_space": Rate(0, 0.25),
        "depth_to_space_runs": Rate(0, 3.03),
        "col2im": Rate(0, 0.446),
        "col2im_pairs": Rate(0, 0.163),
        "col2im_rows": Rate(0, 0.179),
        "col2im_nd": Rate(0, 0.428),
        "transposed": Rate(0, 3.95),
        "transposed_axis": Rate(0, 0.227, 0.564),
        "transposed_rows": Rate(0, 0.289),
    },
    block=16,
    margin=0.1,
    fitted=True,
    least=0.02,
    most_threads=2,
)

# Fitted by scripts/fit_cost.py --busy on an Intel Xeon with AVX-512, OpenVINO 2026.4.1, in float32:
# CPU times of one thread, while other programs ran. How far threads share the work was not
# measured. Over 332 timings the relative error is 30 % in the median, 82 % in the 90th percentile:
# the kinds of work are those of onnxruntime's kernels. So the margins are wide. ``depthwise`` is
# that of a Conv with several output channels per group, which a rewritten depthwise layer becomes:
# there OpenVINO takes ten times as long as with one.
OPENVINO_CPU = CostTable(
    rates={
        "launches": Rate(0, 0.000326),
        "forks": Rate(0, 0),
        "blocked": Rate(0.0143, 0),
        "depthwise": Rate(1.4, 0),
        "gemm": Rate(0.0271, 0),
        "gemm_calls": Rate(0.218, 0),
        "read": Rate(0.217, 0),
        "columns": Rate(0.157, 0),
        "scattered": Rate(0.797, 0),
        "scattered_nd": Rate(1.51, 0),
        "integer": Rate(0.0025, 0),
        "integer_columns": Rate(0, 0),
        "quantized": Rate(0.098, 0),
        "integer_layout": Rate(3.51, 0),
        "weights": Rate(0.624, 0),
        "uncached": Rate(0.227, 0),
        "reordered": Rate(2.58, 0),
        "reordered_part": Rate(0.691, 0),
        "pointwise": Rate(1.05, 0),
        "transcendental": Rate(1.39, 0),
        "prelu": Rate(1.04, 0),
        "reduced": Rate(0.191, 0),
        "reduced_pages": Rate(0.313, 0),
        "copied": Rate(0.782, 0),
        "repeated": Rate(5.01, 0),
        "repeated_blocks": Rate(3.64, 0),
        "linear": Rate(4.99, 0),
        "linear_blocks": Rate(4.99, 0),
        "cubic": Rate(7.62, 0),
        "antialiased": Rate(0.922, 0),
        "depth_to_space": Rate(1.79, 0),
        "depth_to_space_runs": Rate(0, 0),
        "transposed": Rate(1.82, 0),
        "transposed_axis": Rate(0, 1.2),
        "transposed_rows": Rate(0, 0.393),
    },
    block=16,
    margin=0.3,
    fitted=True,
    least=0.05,
    most_threads=1,
)

# Not fitted: nothing was measured on these backends. The constants are chosen so that a rewrite has
# to save multiplications: about 5 of them for each byte that it moves, and 5 us for each kernel.
# Whatever the original does besides multiplying counts as nothing.
_MOVED = Rate(0.0, 0.02)
_NOT_FITTED = CostTable(
    rates={
        "launches": Rate(0.0, 0.005),
        "gemm": Rate(0.0, 0.0005),
        "depth_to_space": _MOVED,
        "col2im": _MOVED,
        "col2im_pairs": _MOVED,
        "col2im_rows": _MOVED,
        "col2im_nd": _MOVED,
        "transposed": _MOVED,
        "transposed_axis": _MOVED,
        "transposed_rows": _MOVED,
    },
    block=0,
    margin=0.25,
    fitted=False,
)
_TENSORRT = replace(_NOT_FITTED, needed=_refused_by_tensorrt)

TABLES: Mapping[str, CostTable] = {
    "ort": ORT_CPU,
    "openvino": OPENVINO_CPU,
    "not-fitted": _NOT_FITTED,
    "tensorrt": _TENSORRT,
}
"""The table of a runtime, by its `deployconv.runtimes.Runtime.cost_table`."""
