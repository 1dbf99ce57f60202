"""Rewrites upsampling layers of ONNX models as Conv + DepthToSpace and proves the result.

Example::

    import deployconv

    result = deployconv.rewrite("model.onnx", output="model.deploy.onnx")
    result.sites, result.parity, result.model
"""

from deployconv._version import __version__
from deployconv.api import bench, build, check, inspect, list_targets, rewrite, verify
from deployconv.errors import (
    BackendUnavailable,
    CheckFailed,
    DeployconvError,
    ModelError,
    UsageError,
)
from deployconv.results import (
    BuildReport,
    CheckReport,
    Inspection,
    Latency,
    ModelCheck,
    Parity,
    Rewriting,
    SiteReport,
    Target,
)

__all__ = [
    "BackendUnavailable",
    "BuildReport",
    "CheckFailed",
    "CheckReport",
    "DeployconvError",
    "Inspection",
    "Latency",
    "ModelCheck",
    "ModelError",
    "Parity",
    "Rewriting",
    "SiteReport",
    "Target",
    "UsageError",
    "__version__",
    "bench",
    "build",
    "check",
    "inspect",
    "list_targets",
    "rewrite",
    "verify",
]
