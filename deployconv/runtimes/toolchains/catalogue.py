"""The toolchains that deployconv can drive: their adapters, pinned versions and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployconv.errors import UsageError

ADAPTERS = Path(__file__).parent / "adapters"
Version = tuple[int, int]


@dataclass(frozen=True)
class Toolchain:
    """One toolchain, installed into an environment of its own.

    Attributes:
        name: what `installed` and the folder of its environment call it.
        adapter: the file in ``adapters/`` that drives it.
        targets: the names of targets that it compiles for, each with the toolchain's own name of
            the device.
        requirements: what pip installs, in this order, with pinned versions.
        alone: what pip installs after that without its dependencies, as they exclude each other.
        python: the oldest and the newest Python that it can be installed for.
        tolerance: how far an output may be from onnxruntime's, relative to its largest value.
        megabytes: what the environment takes, about.
    """

    name: str
    adapter: str
    targets: Mapping[str, str]
    requirements: tuple[str, ...]
    python: tuple[Version, Version]
    megabytes: int
    alone: tuple[str, ...] = ()
    tolerance: float = 1e-4

    @property
    def program(self) -> Path:
        """The adapter's file."""
        return ADAPTERS / self.adapter


_ROWS = (
    Toolchain(
        "openvino",
        "openvino.py",
        {"openvino": "CPU"},
        ("openvino==2026.4.1", "numpy==2.4.6", "ml_dtypes==0.6.0"),
        ((3, 10), (3, 14)),
        290,
    ),
    Toolchain(
        "tract",
        "tract.py",
        {"tract": ""},
        ("tract==0.23.9", "numpy==2.4.6", "ml_dtypes==0.6.0"),
        ((3, 11), (3, 14)),
        130,
    ),
    Toolchain(
        "mnn",
        "mnn.py",
        {"mnn": ""},
        ("MNN==3.6.1", "numpy==2.4.6", "ml_dtypes==0.6.0"),
        ((3, 11), (3, 14)),
        150,
        tolerance=1e-3,
    ),
    Toolchain(
        "ncnn",
        "ncnn.py",
        {"ncnn": ""},
        (
            *("torch==2.13.0", "ncnn==1.0.20261020", "pnnx==20261020"),
            *("numpy==2.4.6", "ml_dtypes==0.6.0"),
        ),
        ((3, 11), (3, 14)),
        1100,
    ),
    Toolchain(
        "iree",
        "iree.py",
        {"iree": "llvm-cpu"},
        ("iree-base-compiler[onnx]==3.13.0", "iree-base-runtime==3.13.0", "numpy==2.4.6"),
        ((3, 11), (3, 14)),
        610,
    ),
    Toolchain(
        "tvm",
        "tvm.py",
        {"tvm": "llvm"},
        ("apache-tvm==0.27.0.post1", "onnx==1.23.2", "numpy==2.4.6"),
        ((3, 11), (3, 14)),
        450,
    ),
)

TOOLCHAINS: Mapping[str, Toolchain] = {row.name: row for row in _ROWS}
"""The toolchains by name."""


def toolchain_of(target: str) -> Toolchain | None:
    """The toolchain that compiles for ``target``; None if there is none."""
    return next((row for row in _ROWS if target in row.targets), None)


def get_toolchain(name: str) -> Toolchain:
    """The toolchain of this name, or the one for a target of this name.

    Raises UsageError if there is none.
    """
    found = TOOLCHAINS.get(name) or toolchain_of(name)
    if found is None:
        known = sorted({target for row in _ROWS for target in row.targets})
        raise UsageError(f"{name}: no toolchain for it; there is one for {', '.join(known)}")
    return found
