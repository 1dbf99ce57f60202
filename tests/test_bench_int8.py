"""The benchmarks of quantized models run and say what they found; no figure is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.subjects import MODELS, decoders, float_samples

ROOT = Path(__file__).resolve().parent.parent


def bench(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("script", "name", "order"),
    [
        ("bench_int8.py", "conv_upsampler_64", "quantize, then rewrite"),
        ("quantize_models.py", "subpixel_figure", "rewrite, then quantize"),
    ],
)
def test_one_model(script: str, name: str, order: str, tmp_path: Path) -> None:
    if script == "bench_int8.py":
        pytest.importorskip("torch", reason="exporting the decoders needs the torch extra")
    report = tmp_path / "bench.json"
    asked = ("--policy", "all", "--threads", "1", "--runs", "1", "--json", str(report))
    done = bench(script, "--only", name, *asked)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["order"] == order
    (row,) = document["rows"]
    assert (row["model"], row["policy"], row["threads"], row["error"]) == (name, "all", 1, None)
    assert [site["certificate"] for site in row["sites"]] == ["exact"]
    assert row["speed"]["ratio"] == pytest.approx(
        row["speed"]["before_ms"] / row["speed"]["after_ms"]
    )
    (summary,) = document["summary"]
    assert summary["most_error"] == pytest.approx(row["errors"]["after"] / row["errors"]["before"])
    table = bench(script, "--table", str(report))
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[2].startswith(f"| {name} | ")


def test_the_recipe_takes_every_sample_that_can_be_quantized() -> None:
    names = [subject.name for subject in float_samples()]
    assert {"dcgan_generator", "espcn_x3", "vae_block", "subpixel_figure"} <= set(names)
    assert not {"dcgan_int8", "dcgan_fp16", "dynamic_upsampler", "if_branch"} & set(names)
    assert all((MODELS / f"{name}.onnx").exists() for name in names)


def test_the_decoders_are_networks_not_layers() -> None:
    pytest.importorskip("torch", reason="the decoders are listed with the torch extra")
    assert [subject.name for subject in decoders()] == [
        *("conv_upsampler_64", "conv_upsampler_128", "text_detector_head_640"),
        *("unet_decoder_256", "dcgan_64", "fsrcnn_x3_180x320", "vae_decoder_512"),
        *("hifigan_vocoder_64", "fcn_8s_512", "sam_mask_decoder_256"),
    ]
