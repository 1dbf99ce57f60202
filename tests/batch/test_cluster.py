"""Models on the workers of a Dask cluster, one of which is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from deployconv.batch.cluster import Cluster
from deployconv.cli import main
from deployconv.errors import UsageError
from tests.batch import stubs
from tests.batch.test_folders import write
from tests.build import ops

distributed = pytest.importorskip("distributed", reason="needs deployconv[cluster]")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two processes with one thread each."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as made:
        yield made


def tried(folder: Path) -> list[str]:
    """The models that were begun, once for each time."""
    return sorted(path.name.partition(".")[0] for path in folder.iterdir())


def run_on(cluster: Any, folder: Path, *names: str) -> dict[str, Any]:
    """Run models, some of which kill their worker; each has exactly one row."""
    runs = Cluster(cluster.scheduler_address)(
        stubs.Killing(folder), stubs.sources(*names), lambda path: None
    )
    rows = list(runs)
    assert sorted(run.path for run in rows) == sorted(names)  # nothing lost, nothing twice
    return {run.path: run for run in rows}


def test_a_lost_worker_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    """One of the two workers is killed in the middle of a model."""
    names = [*(f"good-{at}" for at in range(6)), "once-6", "good-7", "good-8"]
    rows = run_on(cluster, tmp_path, *names)
    assert {run.status for run in rows.values()} == {"passed"}
    assert tried(tmp_path).count("once-6") == 2


def test_a_model_that_kills_its_workers_is_given_up(cluster: Any, tmp_path: Path) -> None:
    rows = run_on(cluster, tmp_path, "good-0", "poison-1", "good-2")
    assert rows["poison-1"].message.endswith("its worker was lost 3 times")
    assert [rows[name].status for name in ("good-0", "good-2")] == ["passed", "passed"]
    assert tried(tmp_path).count("poison-1") == 3


def test_check_and_rewrite(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in/sub/a.onnx"), "good")
    write(Path("in/b.onnx"), "malformed")
    where = ["--cluster", cluster.scheduler_address]
    assert main(["check", "in", *where, "--json"]) == 2
    there = json.loads(capsys.readouterr().out)
    assert main(["check", "in", "--json"]) == 2
    here = json.loads(capsys.readouterr().out)
    for row in (*there["models"], *here["models"]):
        del row["seconds"]
        row["message"] = row["message"] and row["message"].removeprefix(f"{tmp_path}/")
    assert there == here

    assert main(["rewrite", "in", "-o", "out", *where]) == 2
    assert ops(onnx.load("out/sub/a.onnx"))["ConvTranspose"] == 0
    assert main(["rewrite", "in", *where, "--policy", "fastest"]) == 2
    assert "--policy fastest: would measure the machines" in capsys.readouterr().err


def test_urls(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in.onnx", "good")
    made = onnx.load(tmp_path / "in.onnx")
    options = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save(made, tmp_path / "big.onnx", **options)
    urls = [f"file://{tmp_path}/{name}.onnx" for name in ("in", "big", "none")]
    out = f"file://{tmp_path}/out"
    where = ["--cluster", cluster.scheduler_address, "--json"]
    assert main(["rewrite", *urls, "-o", out, *where]) == 2
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [row["path"] for row in rows] == urls
    assert [row["status"] for row in rows] == ["passed", "passed", "error"]
    assert rows[0]["model"]["path"] == urls[0]
    assert rows[0]["output"]["path"] == f"{out}/in.onnx"
    assert rows[2]["message"] == f"{urls[2]}: no such file: check the URL"
    for name in ("in", "big"):
        assert ops(onnx.load(tmp_path / "out" / f"{name}.onnx"))["ConvTranspose"] == 0
    assert main(["check", urls[0], *where]) == 0


def test_a_model_that_hangs_on_a_worker(cluster: Any) -> None:
    names = ("hang-1", "good-2", "crash-3")
    runs = Cluster(cluster.scheduler_address, timeout=4)(
        stubs.act, stubs.sources(*names), lambda path: None
    )
    rows, here = {run.path: run for run in runs}, Path.cwd()
    assert rows["hang-1"].message == f"{here}/hang-1: took longer than --timeout 4 and was ended"
    assert rows["crash-3"].message == f"{here}/crash-3: its process ended early (status 11)"
    assert rows["good-2"].status == "passed"


def test_no_cluster(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployconv.batch.cluster._CONNECT_SECONDS", 1)
    write(tmp_path / "a.onnx", "good")
    assert main(["check", str(tmp_path), "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "deployconv: error: --cluster tcp://127.0.0.1:9: no scheduler answers there: start one"
    )


def test_a_cluster_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployconv.batch.cluster._CONNECT_SECONDS", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(UsageError, match="has no worker: start some"),
    ):
        next(Cluster(empty.scheduler_address)(stubs.act, stubs.sources("a"), lambda path: None))
