"""What a build says in its log: memory, and the kernels that were chosen.

The log is meant for people and has no stated format, so everything here is best effort: what
a version does not print in the form known here is None, never a guess. Seen with tensorrt_rtx
1.7 at verbosity DETAILED.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_MEMORY = {
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
    "scratch_bytes": re.compile(r"Max Scratch Memory: (\d+) bytes"),
}
_LAYERS = "Layers:\n"
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<inputs>\[.*?\]), "
    r"Constants: \[.*?\], Outputs: (?P<outputs>\[.*?\]), TacticName: .*?, Metadata: (?P<nodes>.*)"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]*)\]")


def memory(messages: Iterable[str]) -> dict[str, int | None]:
    """``activation_bytes``, ``weights_bytes`` and ``scratch_bytes`` of the engine."""
    found: dict[str, int | None] = dict.fromkeys(_MEMORY)
    for message in messages:
        for name, pattern in _MEMORY.items():
            if match := pattern.match(message):
                found[name] = int(match[1])
    return found


def kernels(messages: Iterable[str]) -> list[dict[str, Any]] | None:
    """The fields of `results.Kernel` for each kernel, in order; None where they are not listed."""
    listed = [message for message in messages if message.startswith(_LAYERS)]
    if not listed:
        return None
    found = []
    for line in listed[-1].removeprefix(_LAYERS).split("\n"):
        match = _LAYER.match(line)
        if match is None:
            if line.startswith("Name: "):
                return None  # another form than the known one: a wrong count would mislead
            continue
        found.append(
            {
                "name": match["name"],
                "kind": match["kind"],
                "inputs": _DATATYPE.findall(match["inputs"]),
                "outputs": _DATATYPE.findall(match["outputs"]),
                "nodes": nodes(match["nodes"]),
            }
        )
    return found


def nodes(metadata: str) -> list[str]:
    """The ONNX nodes that a layer's metadata names."""
    return _NODE.findall(metadata)
