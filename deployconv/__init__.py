"""Rewrites upsampling layers of ONNX models as Conv + DepthToSpace and proves the result.

Example::

    import deployconv

    result = deployconv.rewrite("model.onnx", output="model.deploy.onnx")
    result.sites, result.parity, result.model
"""

from deployconv._version import __version__
from deployconv.api import bench, build, check, inspect, rewrite, run_all, verify
from deployconv.errors import (
    BackendUnavailable,
    CheckFailed,
    DeployconvError,
    Interrupted,
    ModelError,
    UsageError,
)
from deployconv.results import (
    BatchReport,
    BuildReport,
    CheckReport,
    Inspection,
    Latency,
    ModelCheck,
    ModelRun,
    Parity,
    Rewriting,
    SiteReport,
)

__all__ = [
    "BackendUnavailable",
    "BatchReport",
    "BuildReport",
    "CheckFailed",
    "CheckReport",
    "DeployconvError",
    "Inspection",
    "Interrupted",
    "Latency",
    "ModelCheck",
    "ModelError",
    "ModelRun",
    "Parity",
    "Rewriting",
    "SiteReport",
    "UsageError",
    "__version__",
    "bench",
    "build",
    "check",
    "inspect",
    "rewrite",
    "run_all",
    "verify",
]
