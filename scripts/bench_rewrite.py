"""Compare the time and memory of a rewrite of a large model with those of copying the model.

A round trip through onnx-graphsurgeon is measured as well.

    python scripts/bench_rewrite.py                     a model of 1 GiB
    python scripts/bench_rewrite.py --gib 2.5 --json

Makes a model with external data (a chain of MatMul, then one ConvTranspose) in a temporary
folder and removes it afterwards. Each figure is measured in a process of its own. Peak memory is
the largest resident set less what the process takes once everything is imported.

- copy: ``shutil.copyfile`` and fsync of both files.
- rewrite: ``deployconv rewrite --no-verify --no-bench``, which syncs its files too.
- graphsurgeon: ``import_onnx``, ``export_onnx``, ``onnx.save`` as external data, and fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.process import in_own_process, on_one_line

_SIDE = 512
"""One weight is [_SIDE, _SIDE] float32: 1 MiB."""
_WEIGHT_BYTES = 4 * _SIDE * _SIDE
_MB = 1_000_000


@dataclass(frozen=True)
class Cost:
    """Wall time in seconds and peak memory in bytes above the imports; ``error`` if it failed."""

    name: str
    seconds: float | None
    peak: int | None
    error: str | None = None


def make_model(folder: Path, gib: float) -> None:
    """Write ``model.onnx`` and its data file of ``gib`` GiB to ``folder``."""
    import numpy as np
    from onnx import TensorProto, helper, save

    generator = np.random.default_rng(0)
    data = folder / "model.onnx.data"
    initializers: list[TensorProto] = []

    with data.open("wb") as file:

        def add(name: str, *shape: int) -> str:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            values = generator.random(shape, np.float32)
            for key, value in (
                *(("location", data.name), ("offset", str(file.tell()))),
                ("length", str(values.nbytes)),
            ):
                tensor.external_data.add(key=key, value=value)
            file.write(values.tobytes())
            initializers.append(tensor)
            return name

        nodes, last = [], "x"
        for index in range(round(gib * 2**30 / _WEIGHT_BYTES)):
            weight = add(f"weight_{index}", _SIDE, _SIDE)
            nodes.append(helper.make_node("MatMul", [last, weight], [f"h_{index}"]))
            last = f"h_{index}"
        initializers.append(helper.make_tensor("image", TensorProto.INT64, [4], [1, 32, 4, 4]))
        nodes += [
            helper.make_node("Reshape", [last, "image"], ["features"]),
            helper.make_node(
                *("ConvTranspose", ["features", add("up", 32, 16, 4, 4)], ["y"], "up"),
                strides=[2, 2],
                pads=[1, 1, 1, 1],
            ),
        ]
        file.flush()
        os.fsync(file.fileno())
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")


def copy(source: Path, target: Path) -> Callable[[], None]:
    """Copy every byte onto the disk: the least that any tool has to do."""

    def step() -> None:
        for file in source.parent.iterdir():
            place = target.with_name(target.name + file.name.removeprefix(source.name))
            shutil.copyfile(file, place)
            _sync(place)

    return step


def rewrite(source: Path, target: Path) -> Callable[[], None]:
    """Rewrite without verification and timing."""
    import deployconv

    def run(model: Path, output: Path) -> None:
        done = deployconv.rewrite(model, output=output, verify=False, bench=False)
        statuses = [site.status for site in done.sites]
        if statuses != ["rewritten"]:
            raise RuntimeError(f"expected one rewritten site, found {statuses}")

    with tempfile.TemporaryDirectory() as small:  # imports what is imported on demand
        make_model(Path(small), gib=0)
        run(Path(small, "model.onnx"), Path(small, "out.onnx"))
    return lambda: run(source, target)


def graphsurgeon(source: Path, target: Path) -> Callable[[], None]:
    """Read all, export all, through onnx-graphsurgeon."""
    import onnx
    import onnx_graphsurgeon as gs

    def step() -> None:
        model = gs.export_onnx(gs.import_onnx(onnx.load(source)))
        data = target.name + ".data"
        onnx.save(model, target, save_as_external_data=True, location=data)
        for place in (target, target.with_name(data)):
            _sync(place)

    return step


def _sync(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


_Step = Callable[[Path, Path], Callable[[], None]]


def _measure(prepare: _Step, source: Path, target: Path, cold: bool) -> tuple[float, int]:
    """Seconds and bytes; has to run in a process of its own."""
    from deployconv.runtimes.peak_memory import high_water

    step = prepare(source, target)
    _read_or_drop(source.parent, cold)
    before = high_water()
    start = time.perf_counter()
    step()
    return time.perf_counter() - start, high_water() - before


def _read_or_drop(folder: Path, cold: bool) -> None:
    """Bring the files into the page cache, or out of it if ``cold``."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 20):
                    pass


def measure_all(source: Path, runs: int, cold: bool) -> list[Cost]:
    """Median time and largest peak of each step; the steps take turns, as disks vary."""
    found: dict[_Step, list[tuple[float, int]]] = {copy: [], rewrite: [], graphsurgeon: []}
    failed: dict[_Step, str] = {}
    for _ in range(runs):
        for prepare in (step for step in found if step not in failed):
            with tempfile.TemporaryDirectory(dir=source.parent.parent) as target:
                place = Path(target, "out.onnx")
                try:
                    found[prepare].append(in_own_process(_measure, prepare, source, place, cold))
                except Exception as error:
                    failed[prepare] = on_one_line(error)
    return [_cost(prepare, results, failed.get(prepare)) for prepare, results in found.items()]


def _cost(prepare: _Step, results: list[tuple[float, int]], error: str | None) -> Cost:
    if error is not None:
        return Cost(prepare.__name__, None, None, error)
    seconds, peaks = zip(*results, strict=True)
    return Cost(prepare.__name__, statistics.median(seconds), max(peaks))


def print_table(costs: Sequence[Cost], size: int, runs: int, cold: bool) -> None:
    """Print the costs as a table, with the ratios to copying."""
    cache = "out of" if cold else "in"
    print(f"{size / 2**30:.2f} GiB, {cache} the page cache, with fsync, median of {runs} runs")
    print(f"{'':14}{'seconds':>9}{'x copy':>9}{'MB above imports':>18}")
    for cost in costs:
        if cost.seconds is None or cost.peak is None:
            print(f"{cost.name:14}failed: {cost.error}")
            continue
        ratio = cost.seconds / costs[0].seconds if costs[0].seconds else float("nan")
        print(f"{cost.name:14}{cost.seconds:9.2f}{ratio:9.2f}{cost.peak / _MB:18.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.0, help="size of the weights (default: 1)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each step (default: 3)")
    parser.add_argument("--cold", action="store_true", help="drop the model from the page cache")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-rewrite-", dir=options.folder) as temporary:
        source = Path(temporary, "source", "model.onnx")
        source.parent.mkdir()
        in_own_process(make_model, source.parent, options.gib)
        size = sum(file.stat().st_size for file in source.parent.iterdir())
        costs = measure_all(source, options.runs, options.cold)
    if options.json:
        document = {"bytes": size, "runs": options.runs, "page_cache": not options.cold}
        print(json.dumps({**document, "steps": [asdict(cost) for cost in costs]}, indent=2))
    else:
        print_table(costs, size, options.runs, options.cold)


if __name__ == "__main__":
    main()
