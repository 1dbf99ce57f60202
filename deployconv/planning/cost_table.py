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
        fitted: False where nothing was measured.
        needed: True for a site that the backend cannot run as it is.
    """

    rates: Mapping[Term, Rate]
    block: int
    margin: float
    fitted: bool
    needed: Callable[[UpsampleSite], bool] = _never

    def milliseconds(self, work: Work, threads: int) -> float:
        """Predicted time of ``work``."""
        return sum(
            amount * self.rates[term].at(threads)
            for term, amount in work.items()
            if term in self.rates
        )


# Fitted by scripts/fit_cost.py on an AMD EPYC with AVX-512, 2 CPUs, onnxruntime 1.32.0, with one
# thread and with two: over 548 timings the relative error is 6 % in the median, 30 % in the
# 90th percentile.
ORT_CPU = CostTable(
    rates={
        "launches": Rate(0, 0, 0.000344),
        "forks": Rate(0, 0, 0.0105),
        "blocked": Rate(0.0176, 0.000374),
        "depthwise": Rate(0.0162, 0.00104),
        "gemm": Rate(0.0176, 0.00137),
        "gemm_calls": Rate(0.0252, 0.133),
        "columns": Rate(0.149, 0.0245),
        "scattered": Rate(0, 0.371),
        "scattered_nd": Rate(0.0208, 0.685),
        "weights": Rate(0.0247, 0.043),
        "far": Rate(0.174, 0.024),
        "reordered": Rate(0.0367, 0.163),
        "reordered_part": Rate(0.087, 0.223),
        "pointwise": Rate(0.0633, 0.0252),
        "transcendental": Rate(0.221, 0.0885),
        "prelu": Rate(3.26, 0.661),
        "copied": Rate(0, 0.0782),
        "repeated": Rate(0, 0.0695),
        "repeated_blocks": Rate(0.16, 0.0832),
        "depth_to_space": Rate(0, 0.16),
        "depth_to_space_runs": Rate(0, 3.26),
        "col2im": Rate(0, 0.444),
        "col2im_pairs": Rate(0, 0.142),
        "col2im_nd": Rate(0, 0.428),
        "transposed": Rate(0, 3.93),
        "transposed_axis": Rate(0, 0.229, 0.386),
        "transposed_rows": Rate(0, 0.284, 0.0114),
    },
    block=16,
    margin=0.1,
    fitted=True,
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
