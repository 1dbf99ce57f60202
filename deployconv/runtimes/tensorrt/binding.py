"""The adapter over `tensorrt` and `tensorrt_rtx`; ``hasattr`` finds what differs.

Runs in the worker only. Every refusal of the library becomes a `Refused` with its message.

The memory and the kernels of an engine are read from the build log, which has no documented
format. A value that a version does not print in the format of tensorrt_rtx 1.7 at verbosity
DETAILED is None, never a guess.

Caches only save time: TensorRT 10 and 11 keep how long kernels took on this GPU, TensorRT-RTX the
kernels that it compiled for it.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployconv.runtimes.worker_main import NotAvailable, Refused
from deployconv.temporary import whole_file

Profile = Mapping[str, Sequence[Sequence[int]]]
"""Input name -> its smallest, optimal and largest shape."""

_PADDED = {"CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}
_ERRORS = ("INTERNAL_ERROR", "ERROR")
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
_DIGEST_BYTES = 32


class LibraryUnavailable(NotAvailable):
    """The library cannot be loaded, or cannot work on this machine."""


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is built.

    Attributes:
        target: compute capability to compile for, e.g. ``sm89``; None for this machine's GPU.
        fp16: let a weakly typed builder (TensorRT 8 to 10) choose float16 kernels.
        tf32: True leaves TensorFloat-32 as the library has it; False switches it off.
        optimise: False for the lowest optimisation level of the builder.
        profile: shape ranges of the dynamic inputs.
        cache: folder of the caches; None keeps nothing from one process to the next.
    """

    target: str | None = None
    fp16: bool = False
    tf32: bool = True
    optimise: bool = True
    profile: Profile | None = None
    cache: str | None = None


class Binding:
    """One of the two libraries, loaded."""

    def __init__(self, library: str) -> None:
        try:
            self.trt: Any = importlib.import_module(library)
        # The wheels without their libraries raise OSError, RuntimeError, FileNotFoundError, ...
        except Exception as error:
            raise LibraryUnavailable(
                f"{library} cannot be imported ({type(error).__name__}: {error})"
            ) from error
        self.runtime = f"{library} {self.trt.__version__}"
        self.log = _log(self.trt)
        try:
            self._builder = self.trt.Builder(self.log)
        except Exception as error:
            words = self.log.errors() or f"{type(error).__name__}: {error}"
            raise LibraryUnavailable(f"{self.runtime} cannot make a builder: {words}") from error

    @property
    def has_fp16_flag(self) -> bool:
        """Whether the builder can be told to use float16 even if the model is float32."""
        return hasattr(self.trt.BuilderFlag, "FP16")

    def targets(self) -> list[str]:
        """List the compute capabilities that it compiles for by name, e.g. ``sm75``."""
        if not hasattr(self.trt, "ComputeCapability"):
            return []
        members = self.trt.ComputeCapability.__members__
        return sorted((name.lower() for name in members if name.startswith("SM")), key=_number)

    def parse(self, path: Path, fp16: bool = False) -> Any:
        """Parse the model at ``path``; its external data is in the same folder."""
        network = self._builder.create_network(self._network_flags(fp16))
        parser = self.trt.OnnxParser(network, self.log)
        self.log.clear()
        parsed = parser.parse_from_file(str(path))
        if parser.num_errors:
            error = parser.get_error(0)
            raise Refused(error.desc(), error.node_name() or None, error.node_operator() or None)
        if not parsed:
            raise Refused(self.log.errors() or "the parser failed and gave no reason")
        if not network.num_outputs:
            raise Refused("the parser found no output in the model")
        # The network refers to weights that the parser owns.
        return _Network(network, parser)

    def build(self, network: Any, settings: BuildSettings, timings: CacheFile | None = None) -> Any:
        """Build the serialized engine, an object with the buffer interface.

        ``timings`` is used if the library times kernels while it builds.
        """
        config = self._config(settings)
        timed = timings is not None and self._use_timings(config, timings)
        self.log.clear()
        engine = self._builder.build_serialized_network(network.definition, config)
        if engine is None:
            raise Refused(self.log.errors() or "the builder failed and gave no reason")
        if timed and timings is not None:
            timings.write(bytes(config.get_timing_cache().serialize()))
        return engine

    def padded_layers(self, network: Any) -> list[dict[str, Any]]:
        """List the fields of `results.PaddedLayer` for each convolution of ``network``."""
        found = []
        for index in range(network.definition.num_layers):
            layer = network.definition.get_layer(index)
            interface = _PADDED.get(layer.type.name)
            if interface is not None:
                # get_layer returns the base class; users of TensorRT cast it like this.
                layer.__class__ = getattr(self.trt, interface)
                names = onnx_nodes(getattr(layer, "metadata", ""))
                found.append(
                    {
                        "node": names[0] if names else layer.name,
                        "kind": layer.type.name.lower(),
                        "pre_padding": list(layer.pre_padding),
                        "post_padding": list(layer.post_padding),
                        "mode": layer.padding_mode.name,
                        # Inputs are the tensor, then kernel and bias if they are not constant.
                        "bias_at_run_time": layer.num_inputs > 2,
                    }
                )
        return found

    def deserialize(self, engine: Any) -> tuple[Any, Any]:
        """Load ``engine`` on this machine's GPU: (runtime, engine). Keep both."""
        self.log.clear()
        runtime = self.trt.Runtime(self.log)
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise Refused(self.log.errors() or "the engine was refused without a reason")
        return runtime, loaded

    @property
    def times_kernels(self) -> bool:
        """Whether the builder times kernels. TensorRT-RTX has the API, but does not."""
        return not hasattr(self.trt, "IRuntimeCache")

    def _use_timings(self, config: Any, timings: CacheFile) -> bool:
        """Give ``config`` a timing cache, empty if the kept one does not fit. False if none."""
        if not self.times_kernels or not hasattr(config, "create_timing_cache"):
            return False
        for kept in dict.fromkeys((timings.read(), b"")):
            cache = config.create_timing_cache(kept)
            if cache is not None and config.set_timing_cache(cache, False):
                return True
        return False

    def _network_flags(self, fp16: bool) -> int:
        kinds = self.trt.NetworkDefinitionCreationFlag
        flags = 0
        if hasattr(kinds, "EXPLICIT_BATCH"):
            flags |= 1 << int(kinds.EXPLICIT_BATCH)
        if hasattr(kinds, "STRONGLY_TYPED") and not fp16:
            # Element types are those of the model, so that all versions compile the same thing.
            flags |= 1 << int(kinds.STRONGLY_TYPED)
        return flags

    def _config(self, settings: BuildSettings) -> Any:
        config = self._builder.create_builder_config()
        flags = self.trt.BuilderFlag
        if hasattr(self.trt, "ProfilingVerbosity"):
            config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED
        if settings.fp16:
            config.set_flag(flags.FP16)
        if not settings.tf32 and hasattr(flags, "TF32"):
            config.clear_flag(flags.TF32)
        if not settings.optimise and hasattr(config, "builder_optimization_level"):
            config.builder_optimization_level = 0
        if settings.target is not None:
            config.num_compute_capabilities = 1
            capability = getattr(self.trt.ComputeCapability, settings.target.upper())
            config.set_compute_capability(capability, 0)
        elif hasattr(config, "num_compute_capabilities"):
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.trt.ComputeCapability.CURRENT, 0)
        if settings.profile:
            profile = self._builder.create_optimization_profile()
            for name, (smallest, optimal, largest) in settings.profile.items():
                try:
                    profile.set_shape(name, tuple(smallest), tuple(optimal), tuple(largest))
                except ValueError as error:
                    raise Refused(f"shape range of input '{name}': {error}") from error
            if config.add_optimization_profile(profile) < 0:
                raise Refused(self.log.errors() or "the shape ranges contradict each other")
        return config


@dataclass(frozen=True)
class _Network:
    definition: Any
    parser: Any


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))


def _log(trt: Any) -> Any:
    """Make a logger that keeps all messages; its base class comes with the library."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.entries: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.entries.append((severity.name, message))

        def clear(self) -> None:
            self.entries.clear()

        def messages(self) -> list[str]:
            return [message for _, message in self.entries]

        def errors(self) -> str:
            """Join the errors since `clear`, each once."""
            words = (text for severity, text in self.entries if severity in _ERRORS)
            return "; ".join(dict.fromkeys(words))

    return Log()


def logged_memory(messages: Iterable[str]) -> dict[str, int | None]:
    """Find ``activation_bytes``, ``weights_bytes`` and ``scratch_bytes`` in a build log."""
    found: dict[str, int | None] = dict.fromkeys(_MEMORY)
    for message in messages:
        for name, pattern in _MEMORY.items():
            if match := pattern.match(message):
                found[name] = int(match[1])
    return found


def logged_kernels(messages: Iterable[str]) -> list[dict[str, Any]] | None:
    """List the fields of `results.Kernel` for each kernel, in order; None if the log has none."""
    listed = [message for message in messages if message.startswith(_LAYERS)]
    if not listed:
        return None
    found = []
    for line in listed[-1].removeprefix(_LAYERS).split("\n"):
        match = _LAYER.match(line)
        if match is None:
            if line.startswith("Name: "):
                return None  # not the known format: a wrong count would mislead
            continue
        found.append(
            {
                "name": match["name"],
                "kind": match["kind"],
                "inputs": _DATATYPE.findall(match["inputs"]),
                "outputs": _DATATYPE.findall(match["outputs"]),
                "nodes": onnx_nodes(match["nodes"]),
            }
        )
    return found


def onnx_nodes(metadata: str) -> list[str]:
    """List the ONNX nodes that a layer's metadata names."""
    return _NODE.findall(metadata)


class CacheFile:
    """One cache in ``folder``; ``key`` names the runtime, its version and the GPU.

    Processes may share it; the last one wins. It begins with a digest of the rest, so that a
    damaged file is not used.
    """

    def __init__(self, folder: Path, *key: str) -> None:
        name = "-".join(re.sub(r"[^\w.]+", "_", part) for part in key)
        self._path = folder / f"{name}.cache"
        self._known = b""

    def read(self) -> bytes:
        """Return the content; empty if there is no file, or a damaged one."""
        with suppress(OSError):
            content = self._path.read_bytes()
            digest, kept = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(kept).digest() == digest:
                self._known = kept
        return self._known

    def write(self, content: bytes) -> None:
        """Write ``content`` completely or not at all; a full or read-only disk is no error."""
        if content == self._known:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path) as file:
                file.write(hashlib.sha256(content).digest() + content)
            self._known = content
