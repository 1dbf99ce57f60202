#!/usr/bin/env bash
# Times one model, or two in turns, with TensorRT on a Jetson or a desktop GPU, and writes what
# came out, with the power mode and the clocks it came out at, to one JSON file:
#
#   scripts/bench_jetson.sh OUT.json MODEL [OTHER] [options of deployconv bench]
#   deployconv bench --from OUT.json        shows it, on any machine
#
# Power mode and clocks are recorded, not changed: set them as the device will run. On a Jetson
# make the virtual environment with `python3 -m venv --system-site-packages`, so that JetPack's
# own tensorrt is found, and `pip install deployconv cuda-python`. PYTHON names the interpreter.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 OUT.json MODEL [OTHER] [options of deployconv bench]" >&2
    exit 2
fi
out=$1
shift
python=${PYTHON:-python3}

# One "key<TAB>value" a line; what a machine does not have is left out.
conditions() {
    local when=$1 file
    if command -v nvpmodel >/dev/null; then
        printf 'power mode\t%s\n' "$(nvpmodel -q 2>/dev/null | paste -sd ' ')"
    fi
    if [ -r /etc/nv_tegra_release ]; then
        printf 'L4T\t%s\n' "$(head -n 1 /etc/nv_tegra_release)"
    fi
    for file in /sys/class/devfreq/*gpu*/cur_freq /sys/class/devfreq/*.gp[ua]/cur_freq; do
        if [ -r "$file" ]; then
            printf 'GPU clock %s, Hz\t%s\n' "$when" "$(cat "$file")"
        fi
    done
    if command -v nvidia-smi >/dev/null; then
        printf 'nvidia-smi %s\t%s\n' "$when" "$(nvidia-smi \
            --query-gpu=name,driver_version,power.limit,clocks.sm,clocks.mem,temperature.gpu \
            --format=csv,noheader 2>/dev/null | head -n 1)"
    fi
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
conditions before >"$work/conditions"
"$python" -m deployconv bench --backend tensorrt --json "$@" >"$work/timing.json"
conditions after >>"$work/conditions"
"$python" - "$work" "$out" <<'END'
import json
import sys
from pathlib import Path

work, out = map(Path, sys.argv[1:])
document = json.loads((work / "timing.json").read_text())
lines = (work / "conditions").read_text().splitlines()
document["conditions"] = dict(line.split("\t", 1) for line in lines if "\t" in line)
out.write_text(json.dumps(document, indent=2) + "\n")
END
echo "wrote $out" >&2
