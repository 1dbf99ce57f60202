#!/usr/bin/env bash
# Times one model, or two in turns, with TensorRT on a Jetson or a desktop GPU. Writes the timings
# and the power mode and clocks that they were measured at to one JSON file:
#
#   scripts/bench_jetson.sh OUT.json MODEL [OTHER] [options of deployconv bench]
#   deployconv bench --from OUT.json        shows it, on any machine
#
# Power mode and clocks are recorded, not changed: set them as the device will run. On a Jetson
# make the virtual environment with `python3 -m venv --system-site-packages`, so that JetPack's
# own tensorrt is found. Install deployconv and the cuda-python of JetPack's CUDA, which is
# 'cuda-python<13' for JetPack 6. PYTHON names the interpreter, BACKEND another backend
# than tensorrt.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 OUT.json MODEL [OTHER] [options of deployconv bench]" >&2
    exit 2
fi
out=$1
shift
if [ ! -d "$(dirname "$out")" ]; then
    echo "$0: $out: there is no such folder" >&2
    exit 2
fi
python=${PYTHON:-python3}
backend=${BACKEND:-tensorrt}

# Prints "key<TAB>value"; what a machine does not have, or shows to root only, is left out.
record() {
    local value
    value=$(tr -d '\0' <<<"$2" | paste -sd ' ' | tr -s '\t ' ' ')
    if [ -n "${value// /}" ]; then
        printf '%s\t%s\n' "$1" "$value"
    fi
}
record_file() {
    if [ -r "$2" ]; then
        record "$1" "$(tr -d '\0' <"$2" 2>/dev/null || true)"
    fi
}
record_output() {
    local key=$1
    shift
    if command -v "$1" >/dev/null; then
        record "$key" "$("$@" 2>/dev/null || true)"
    fi
}

device() {
    record_file 'device' /proc/device-tree/model
    record_file 'L4T' /etc/nv_tegra_release
    record_output 'JetPack' dpkg-query --show --showformat '${Version}' nvidia-jetpack
}
conditions() {
    local when=$1 folder name
    record_output "power mode $when" nvpmodel -q
    record_output "jetson_clocks --show $when" jetson_clocks --show
    for folder in /sys/class/devfreq/*.gpu /sys/class/devfreq/*.gv11b /sys/class/devfreq/*.gp10b \
        /sys/devices/system/cpu/cpufreq/policy*; do
        name=$(basename "$folder")
        for file in cur_freq min_freq max_freq governor \
            scaling_cur_freq scaling_min_freq scaling_max_freq scaling_governor; do
            record_file "$name $file $when" "$folder/$file"
        done
    done
    for folder in /sys/class/thermal/thermal_zone*; do
        if [ -r "$folder/type" ]; then
            record_file "temperature $(cat "$folder/type") $when, millidegrees" "$folder/temp"
        fi
    done
    record_output "nvidia-smi $when" nvidia-smi \
        --query-gpu=name,driver_version,power.limit,clocks.sm,clocks.mem,temperature.gpu \
        --format=csv,noheader
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
device >"$work/conditions"
conditions before >>"$work/conditions"
"$python" -m deployconv bench --backend "$backend" --json "$@" >"$work/timing.json"
conditions after >>"$work/conditions"
"$python" - "$work" "$out" <<'END'
import json
import sys
from pathlib import Path

work, out = map(Path, sys.argv[1:])
document = json.loads((work / "timing.json").read_text(encoding="utf-8"))
lines = (work / "conditions").read_text(encoding="utf-8", errors="replace").splitlines()
document["conditions"] = dict(line.split("\t", 1) for line in lines if "\t" in line)
out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
END
echo "wrote $out" >&2
