"""The constants of the cost model: one table a backend.

What an amount of work takes is a `Rate` times the amount: milliseconds for each unit of
it (`cost_terms.Term`): a million multiplications or elements, one node, a thousand matrix
multiplications.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from deployconv.planning.cost_terms import Term, Work
from deployconv.sites import UpsampleSite


@dataclass(frozen=True)
class Rate:
    """Milliseconds for a unit of work: what threads share, what they do not, what they cost.

    ``each`` is for every thread but the first.
    """

    parallel: float
    serial: float = 0.0
    each: float = 0.0

    def at(self, threads: int) -> float:
        """Milliseconds with this many threads."""
        return self.parallel / threads + self.serial + self.each * (threads - 1)


def _never(site: UpsampleSite) -> bool:
    return False


def _refused_by_tensorrt(site: UpsampleSite) -> bool:
    """A ConvTranspose that TensorRT does not build: bfloat16, or stride and dilation above 1."""
    dilated = any(step > 1 for step in site.geometry.dilation or ())
    spread = dilated and any(step > 1 for step in site.stride)
    return site.pattern == "conv_transpose" and (spread or site.weight.dtype.name == "bfloat16")


@dataclass(frozen=True)
class CostTable:
    """What work takes on one backend.

    Attributes:
        rates: by kind of work; what is not there takes no time.
        block: channels in a block of a blocked Conv; 0 where there is none.
        margin: part of the time of the layers in question that a form must save before it is
            taken, for what the model does not know.
        least: part of the time of the whole model that all forms together must save; another graph
            is not worth less.
        fitted: False where nothing was measured.
        needed: True for a site that the backend cannot run as it is.
    """

    rates: Mapping[Term, Rate]
    block: int
    margin: float
    fitted: bool
    needed: Callable[[UpsampleSite], bool] = _never
    least: float = 0.0

    def milliseconds(self, work: Work, threads: int) -> float:
        """Predicted time of ``work``."""
        return sum(
            amount * self.rates[term].at(threads)
            for term, amount in work.items()
            if term in self.rates
        )


# Fitted by scripts/fit_cost.py on an AMD EPYC with AVX-512, 2 CPUs, onnxruntime 1.32.0, with one
# thread and with two: over 652 timings the relative error is 8 % in the median, 36 % in the
# 90th percentile.
ORT_CPU = CostTable(
    rates={
        "launches": Rate(0, 5.87e-06, 0.000407),
        "forks": Rate(0, 0, 0.00976),
        "blocked": Rate(0.0166, 0.000643),
        "depthwise": Rate(0.0135, 0),
        "gemm": Rate(0.0165, 0.00243),
        "gemm_calls": Rate(0.0323, 0.149),
        "columns": Rate(0.141, 0.033),
        "scattered": Rate(0, 0.359),
        "scattered_nd": Rate(0.16, 0.557),
        "integer": Rate(0.0024, 0.00113),
        "integer_columns": Rate(0.0614, 0.0192),
        "quantized": Rate(0, 0.142),
        "turned": Rate(0, 0.215),
        "weights": Rate(0.0274, 0.037),
        "far": Rate(0.149, 0.0256),
        "reordered": Rate(0.059, 0.149),
        "reordered_part": Rate(0, 0.316),
        "pointwise": Rate(0.0537, 0.0242),
        "transcendental": Rate(0.299, 0.0361),
        "prelu": Rate(3.37, 0.594),
        "reduced": Rate(1.13, 0.0),
        "copied": Rate(0.00796, 0.0611),
        "repeated": Rate(0, 0.0706),
        "repeated_blocks": Rate(0, 0.768),
        "depth_to_space": Rate(0, 0.24),
        "depth_to_space_runs": Rate(0, 3.06),
        "col2im": Rate(0, 0.443),
        "col2im_pairs": Rate(0, 0.139),
        "col2im_rows": Rate(0, 0.163),
        "col2im_nd": Rate(0, 0.427),
        "transposed": Rate(0, 3.91),
        "transposed_axis": Rate(0, 0.226, 0.536),
        "transposed_rows": Rate(0, 0.268),
    },
    block=16,
    margin=0.1,
    fitted=True,
    least=0.015,
)

# Not fitted: nothing was measured on these. The constants are chosen so that a rewrite has to
# pay in multiplications: some 5 of them for a byte that is moved, and 5 us for a kernel. What the
# original does besides multiplying counts as nothing.
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
    "ort:cuda": _NOT_FITTED,
    "ort:tensorrt": _TENSORRT,
    "tensorrt": _TENSORRT,
    "tensorrt-rtx": _TENSORRT,
}
"""By the name of the backend."""
