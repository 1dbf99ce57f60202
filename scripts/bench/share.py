"""How much of a model's time its upsampling layers take: no rewrite of them can save more.

onnxruntime's profiler tells the time of each node. A layer is found by the name of its node. If
onnxruntime has replaced it, together with the activation after it, by a node of its own, the layer
is found by the name of the tensor that it makes. The time that a rewrite spends on moving data is
that of the nodes whose names are new.
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
from bench.subjects import Shapes, random_feeds
from bench.work import all_nodes, macs_of

_RUNS = 15
_WARMUP = 3
_FUSED = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
_CONTROL = frozenset({"If", "Loop", "Scan"})
"""Their time is that of the nodes inside, which the profile lists as well."""
_SUFFIXES = ("", "_nchwc")
_REORDERS = ("ReorderInput", "ReorderOutput")
_MOVES = frozenset(
    {"Col2Im", "Concat", "DepthToSpace", "Reshape", "Slice", "Split", "Transpose", *_REORDERS}
)
"""Operators of a shuffle or crop. None computes: in such a Col2Im the stride equals the block."""


@dataclass(frozen=True)
class Share:
    """The upsampling layers that can be rewritten: part of the time, and multiplications."""

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
    nodes = _profile(path, shapes, threads)
    total = sum(node.ms for node in nodes)
    part = sum(
        node.ms for node in nodes if names and (node.name in own or node.op_type in _REORDERS)
    )
    return Share(part / total if total else 0.0, macs_of(model, shapes, names))


def moving_part(original: Path, rewritten: Path, shapes: Shapes, threads: int) -> float:
    """Measure which part of the rewritten model's time goes into shuffles, crops and reorders.

    Only nodes that the original does not have count, and the time of reorders beyond those of the
    original.
    """
    import onnx

    known = {node.name for node in all_nodes(onnx.load(original))}
    before, after = (_profile(path, shapes, threads) for path in (original, rewritten))
    reorders = [sum(n.ms for n in nodes if n.op_type in _REORDERS) for nodes in (before, after)]
    new = (n.ms for n in after if n.op_type in _MOVES - {*_REORDERS} and n.name not in known)
    total = sum(node.ms for node in after)
    return (sum(new) + max(0.0, reorders[1] - reorders[0])) / total if total else 0.0


def limit(share: Share, floor: Floor, rates: Rates, before_ms: float) -> float:
    """The ratio original / rewritten that no rewrite of the upsampling layers can exceed.

    All other layers take the time that they took; the upsampling layers take at least the time of
    the form with the fewest multiplications.
    """
    least = 0.0
    if share.macs is not None and floor.before.macs is not None and floor.macs is not None:
        saved = floor.before.macs - floor.macs
        # A layer that is faster than MatMul's rate shows that it can be done in that time.
        least = min(share.time, max(0, share.macs - saved) / rates.macs / before_ms)
    return 1.0 / max(1.0 - share.time + least, 1.0 / UNBOUNDED)


UNBOUNDED = 1e3
"""Stands for no limit: the upsampling layer is the whole model."""


def _as_profiled(model: ModelProto, names: set[str]) -> list[str]:
    """The names that onnxruntime may give to the nodes with these names."""
    nodes = list(all_nodes(model))
    made = {output for node in nodes if node.name in names for output in node.output}
    after = {node.output[0] for node in nodes if node.op_type in _FUSED and node.input[0] in made}
    return [name + suffix for name in names | made | after for suffix in _SUFFIXES]


@dataclass(frozen=True)
class _Node:
    """A node as onnxruntime runs it, with its median milliseconds."""

    name: str
    op_type: str
    ms: float


def _profile(path: Path, shapes: Shapes, threads: int) -> list[_Node]:
    """Every node that is run, by the name that onnxruntime gives it."""
    import onnxruntime as ort

    feeds = random_feeds(path, shapes, threads)
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
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            taken[key].append(event["dur"] / 1e3)
    return [
        _Node(name, op_type, statistics.median(found[_WARMUP:] or found))
        for (name, op_type), found in taken.items()
        if op_type not in _CONTROL
    ]
