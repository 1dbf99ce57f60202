"""How much of a model's time its upsampling layers take: no rewrite of them can save more.

onnxruntime's profiler tells the time of each node. A layer is found by its node's name, or by that
of the tensor it makes where onnxruntime has put a node of its own in its place, with the
activation behind it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from bench.floor import Floor, Rates
from bench.subjects import Shapes
from bench.work import all_nodes, macs_of

_RUNS = 15
_WARMUP = 3
_FUSED = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
_CONTROL = frozenset({"If", "Loop", "Scan"})
"""Their time is that of the nodes inside, which are listed as well."""
_SUFFIXES = ("", "_nchwc")
_REORDERS = ("ReorderInput", "ReorderOutput")


@dataclass(frozen=True)
class Share:
    """Of the upsampling layers that can be rewritten: part of the time, and multiplications."""

    time: float
    macs: int | None


def upsampling_share(path: Path, shapes: Shapes, threads: int) -> Share:
    """Measure how much of a model's time its upsampling layers take."""
    import onnx

    import deployconv

    model = onnx.load(path)
    sites = deployconv.inspect(path).sites
    names = {name for site in sites if site.status == "rewritten" for name in site.nodes}
    own = set(_as_profiled(model, names))
    times = _node_times(path, shapes, threads)
    total = sum(times.values())
    part = sum(
        ms for name, ms in times.items() if names and (name in own or name.startswith(_REORDERS))
    )
    return Share(part / total if total else 0.0, macs_of(model, shapes, names))


def limit(share: Share, floor: Floor, rates: Rates, before_ms: float) -> float:
    """The ratio original / rewritten that no rewrite of the upsampling layers can exceed.

    All other layers take what they took, and those the time of their fewest multiplications.
    """
    least = 0.0
    if share.macs is not None and floor.before.macs is not None and floor.macs is not None:
        saved = floor.before.macs - floor.macs
        # A layer that is faster than MatMul's rate shows that it can be done in that time.
        least = min(share.time, max(0, share.macs - saved) / rates.macs / before_ms)
    return 1.0 / max(1.0 - share.time + least, 1.0 / UNBOUNDED)


UNBOUNDED = 1e3
"""What stands for a limit that is none: the upsampling layer is the whole model."""


def _as_profiled(model: ModelProto, names: set[str]) -> list[str]:
    """What onnxruntime may call the nodes with these names."""
    nodes = list(all_nodes(model))
    made = {output for node in nodes if node.name in names for output in node.output}
    behind = {node.output[0] for node in nodes if node.op_type in _FUSED and node.input[0] in made}
    return [name + suffix for name in names | made | behind for suffix in _SUFFIXES]


def _node_times(path: Path, shapes: Shapes, threads: int) -> dict[str, float]:
    """Median milliseconds of each node, by the name that onnxruntime has for it."""
    import onnxruntime as ort

    from deployconv.backends import get_backend
    from deployconv.options import FeedOptions
    from deployconv.proof.inputs import make_feeds

    specs = get_backend("ort").prepare(path, threads=threads).inputs
    feeds = make_feeds(specs, FeedOptions(shapes)).arrays
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="bench-ort-") as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[str, list[float]] = defaultdict(list)
    for event in events:
        kernel = event["cat"] == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["args"]["op_name"] not in _CONTROL:
            taken[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    return {name: statistics.median(found[_WARMUP:] or found) for name, found in taken.items()}
