"""Rewrites upsampling layers of ONNX models as Conv + DepthToSpace and proves the result.

Example::

    import deployconv

    result = deployconv.rewrite("model.onnx", output="model.deploy.onnx")
    result.sites, result.parity, result.model
"""

from typing import TYPE_CHECKING, Any

from deployconv._version import __version__

if TYPE_CHECKING:
    from deployconv.api import (
        bench,
        build,
        check,
        diff,
        inspect,
        list_targets,
        rewrite,
        run_all,
        verify,
    )
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
        ModelDifference,
        ModelRun,
        Parity,
        Rewriting,
        SiteReport,
        Target,
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
    "ModelDifference",
    "ModelError",
    "ModelRun",
    "Parity",
    "Rewriting",
    "SiteReport",
    "Target",
    "UsageError",
    "__version__",
    "bench",
    "build",
    "check",
    "diff",
    "inspect",
    "list_targets",
    "rewrite",
    "run_all",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that the command line starts at once."""
    from importlib import import_module

    if name == "api":
        return import_module("deployconv.api")
    for module in ("api", "errors", "results") if name in __all__ else ():
        found = vars(import_module(f"deployconv.{module}")).get(name)
        if found is not None:
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
