"""Time each layer of a model with onnxruntime's profiler."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import median

from deployconv.results import LayerTime
from deployconv.runtimes.base import Feeds, ModelSource
from deployconv.temporary import temporary_folder

RUNS = 10
_WARMUP = 2
_SUFFIX = "_kernel_time"
"""Ends the name of the event that covers the computation of one node."""
_OWN_NAME = re.compile(r"_(nchwc|token_\d+)$")
"""What onnxruntime appends to the name of a node that it puts in place of one of the model."""


def time_layers(model: ModelSource, feeds: Feeds, threads: int) -> tuple[LayerTime, ...]:
    """Return the time of every node that onnxruntime runs: milliseconds, a median over runs.

    The nodes are in the order of their execution. The profiler sees them after onnxruntime's own
    fusions, so one may stand for several nodes of the model. It makes each node a little slower,
    so the sum is more than the latency.
    """
    import onnxruntime as ort

    with temporary_folder() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = ort.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            options,
            providers=["CPUExecutionProvider"],
        )
        for _ in range(_WARMUP + RUNS):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _layers(events)


def _layers(events: list[dict[str, object]]) -> tuple[LayerTime, ...]:
    taken: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            taken[name.removesuffix(_SUFFIX)].append(float(str(event["dur"])) / 1e3)
    return tuple(
        LayerTime(name, median(times[_WARMUP:] or times), (name, _OWN_NAME.sub("", name)))
        for name, times in taken.items()
    )
