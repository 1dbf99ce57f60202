#!/usr/bin/env bash
# torch 2.13.0, CPU: interpolate(..., antialias=True) of an image that is one pixel wide gives every
# row of the output the values of the first row. An image that is one pixel high, or two pixels wide
# with both columns the same, is resized as it should be. So is the first one without antialias.
#
# Expected: the images hold the same numbers, so all results are equal.
# Seen, bilinear from 8 to 4: width one [1.714, 1.714, 1.714, 1.714], height one
#           [1.714, 3.5, 5.5, 7.286]; bicubic alike. Nothing is raised.
#
# An image of width one has strides that fit both memory formats, channels first and channels last.
# Who checks a matrix of weights on unit impulses along one axis should put them along the last one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

line = torch.arange(1.0, 9.0)
for mode in ("bilinear", "bicubic"):
    options = {"mode": mode, "antialias": True}
    narrow = interpolate(line.reshape(1, 1, 8, 1), size=(4, 1), **options).flatten()
    flat = interpolate(line.reshape(1, 1, 1, 8), size=(1, 4), **options).flatten()
    two = interpolate(line.reshape(1, 1, 8, 1).repeat(1, 1, 1, 2), size=(4, 2), **options)[..., 0]
    plain = interpolate(line.reshape(1, 1, 8, 1), size=(4, 1), mode=mode).flatten()
    print(f"torch {torch.__version__} {mode}: width one {narrow.tolist()}, height one {flat.tolist()}")
    assert torch.allclose(flat, two.flatten()), "the image two pixels wide differs too"
    assert len(set(plain.tolist())) == 4, "without antialias the rows are equal too"
    assert len(set(flat.tolist())) == 4
    assert narrow.tolist() == [narrow[0].item()] * 4, "the rows differ: this was mended"
print("as described: every row of an image one pixel wide is the first one")
PYTHON
