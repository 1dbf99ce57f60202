#!/usr/bin/env bash
# What deployconv is for, in three acts: `make demo` runs this.
#
# Needs `deployconv` on the PATH, with onnxruntime. The first act also needs TensorRT-RTX, and is
# not run without it. Writes to build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/demo
mkdir -p "$out"

say() { printf '\n=== %s\n' "$*"; }

run() {
    printf '\n$ deployconv %s\n' "$*"
    deployconv "$@"
}

say "1. TensorRT refuses this model as exported: it has a ConvTranspose with stride and dilation."
status=0
run build models/dilated_upsampler.onnx --target sm89 || status=$?
case $status in
0 | 1)
    if [ "$status" = 0 ]; then
        printf '\nThis version of TensorRT builds it as exported.\n'
    fi
    say "Rewritten as Conv and DepthToSpace it builds. No GPU is needed to compile."
    rewritten=$out/dilated_upsampler.deploy.onnx
    run rewrite models/dilated_upsampler.onnx -o "$rewritten" --force --no-bench
    run build "$rewritten" --target sm89
    ;;
3) printf '\nnot run: TensorRT-RTX is not available here; it is packaged for Linux on x86-64\n' ;;
*) exit "$status" ;;
esac

say "2. This model becomes several times as fast on this CPU, and the report proves that it is equal."
run rewrite models/fcn_bilinear.onnx --policy cost -o "$out/fcn_bilinear.deploy.onnx" --force

say "3. This model is best left alone on this CPU, and it is: its layers have no work to save."
run rewrite models/unet_decoder.onnx --policy cost --dry-run
