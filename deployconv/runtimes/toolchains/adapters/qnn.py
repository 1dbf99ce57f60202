"""onnxruntime with Qualcomm's QNN provider, for the emulator of the HTP (Hexagon)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
import onnxruntime_qnn

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job

onnxruntime.register_execution_provider_library("QNN", onnxruntime_qnn.get_library_path())


def version() -> str:
    """The libraries and their versions."""
    from importlib.metadata import version as version_of

    return f"onnxruntime-qnn {version_of('onnxruntime-qnn')}, onnxruntime {onnxruntime.__version__}"


class Session:
    """A compiled model, ready to run in the emulator."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.notes: dict[str, Any] = {}
        for group in session.get_provider_graph_assignment_info():
            kinds = [node.op_type for node in group.get_nodes()]
            key = "npu" if group.ep_name == "QNN" else "cpu"
            self.notes[key] = " ".join([*self.notes.get(key, "").split(), *kinds])

    def run(self, feeds: Feeds) -> list[Any]:
        """Compute the outputs."""
        return list(self._session.run(None, dict(feeds)))


def prepare(job: Job) -> Session:
    """Compile the model of ``job`` for the HTP; onnxruntime keeps what QNN does not take."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == "QNN"]
    options.add_provider_for_devices(
        devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
    )
    return Session(onnxruntime.InferenceSession(str(job.model), options))
