"""Models whose weights lie in other files: nothing is lost, moved wrongly, or read in vain."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import deployconv
from deployconv.errors import UsageError
from deployconv.graph import constants
from deployconv.graph.tensors import ExternalData, all_tensors, is_external, read_tensor
from tests.build import model, node
from tests.runtimes.tiny import FLOAT, graph, value

Array = NDArray[Any]
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((8, 16, 4, 4)).astype(np.float32)


@dataclass
class Shelf:
    """Puts tensors into files of ``folder``, each at the next or a given offset."""

    folder: Path
    written: dict[str, Array] = field(default_factory=dict)

    def put(
        self,
        name: str,
        array: Array,
        location: str = "net.bin",
        offset: int | None = None,
        length: bool = True,
    ) -> TensorProto:
        file = self.folder / location
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        start = file.stat().st_size if offset is None else offset
        with file.open("r+b") as opened:
            opened.seek(start)
            opened.write(array.tobytes())
        tensor = numpy_helper.from_array(array[:0], name)
        tensor.ClearField("raw_data")
        tensor.dims[:] = array.shape
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": str(start)}
        if length:
            entries["length"] = str(array.nbytes)
        for key, text in entries.items():
            tensor.external_data.add(key=key, value=text)
        self.written[name] = array
        return tensor

    def save(self, proto: ModelProto, name: str = "net.onnx") -> Path:
        path = self.folder / name
        path.write_bytes(proto.SerializeToString())
        return path


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    folder = tmp_path / "source"
    folder.mkdir()
    return Shelf(folder)


def upsampler(shelf: Shelf, *others: TensorProto) -> ModelProto:
    """A ConvTranspose with external weight, then the sum with the mean of each other tensor."""
    nodes = [node("ConvTranspose", ["x", "w"], ["h0"], strides=[2, 2], pads=[1, 1, 1, 1])]
    for position, tensor in enumerate(others):
        mean = f"mean{position}"
        nodes.append(node("ReduceMean", [tensor.name], [mean], keepdims=0))
        nodes.append(node("Add", [f"h{position}", mean], [f"h{position + 1}"]))
    nodes.append(node("Identity", [f"h{len(others)}"], ["y"]))
    initializers = [shelf.put("w", WEIGHT), *others]
    x, y = value("x", FLOAT, [1, 8, 5, 5]), value("y", FLOAT, [1, 16, 10, 10])
    return model(graph(nodes, [x], [y], initializers))


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def external_tensors(path: Path) -> dict[str, ExternalData]:
    proto = onnx.load(path, load_external_data=False)
    return {t.name: ExternalData.of(t) for t in all_tensors(proto) if is_external(t)}


def check_kept(path: Path, shelf: Shelf) -> None:
    """Every tensor but the rewritten weight has the bytes it had."""
    proto = onnx.load(path, load_external_data=False)
    found = {tensor.name: read_tensor(tensor, path.parent) for tensor in all_tensors(proto)}
    assert "w" not in found
    for name in shelf.written.keys() - {"w"}:
        assert found[name].tobytes() == shelf.written[name].tobytes(), name
        assert found[name].shape == shelf.written[name].shape


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_several_files_become_one_and_the_inputs_stay(shelf: Shelf, tmp_path: Path) -> None:
    others = [
        shelf.put("same_file", normal(40, 50)),
        shelf.put("own_file", normal(30, 30), "other.bin"),
        shelf.put("in_a_folder", normal(300), "weights/deep/a.bin"),
        shelf.put("unaligned", normal(300), "odd.bin", offset=3),
        shelf.put("without_length", normal(300), length=False),
        shelf.put("half", normal(300).astype(np.float16)),
        shelf.put("large", normal(600, 600)),
        shelf.put("small", normal(3)),
    ]
    # ReduceMean of float16 would not add up: it is only stored.
    proto = upsampler(shelf, *(tensor for tensor in others if tensor.name != "half"))
    proto.graph.initializer.extend(tensor for tensor in others if tensor.name == "half")
    path, output = shelf.save(proto), tmp_path / "elsewhere" / "out.onnx"
    output.parent.mkdir()
    before = snapshot(shelf.folder)
    done = deployconv.rewrite(path, output=output, bench=False)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
    assert done.parity is not None
    assert done.parity.passed
    assert snapshot(shelf.folder) == before
    assert sorted(file.name for file in output.parent.iterdir()) == ["out.onnx", "out.onnx.data"]
    check_kept(output, shelf)
    places = external_tensors(output)
    assert {place.location for place in places.values()} == {"out.onnx.data"}
    assert all(place.length is not None for place in places.values())
    assert all(place.offset % 16 == 0 for place in places.values())
    assert places["large"].offset % (1 << 16) == 0
    onnx.checker.check_model(output, full_check=True)
    assert deployconv.verify(path, output)[0].passed


def test_new_weights_go_where_the_old_ones_lay(shelf: Shelf, tmp_path: Path) -> None:
    """Also where no other tensor is external."""
    output = tmp_path / "out.onnx"
    done = deployconv.rewrite(shelf.save(upsampler(shelf)), output=output, bench=False)
    assert done.parity is not None
    assert done.parity.passed
    (place,) = external_tensors(output).values()
    assert place.length == WEIGHT.nbytes  # k4 s2 p1: as many taps as before


def test_bytes_that_tensors_share_are_stored_once(shelf: Shelf, tmp_path: Path) -> None:
    first = shelf.put("first", normal(500, 20))
    second = TensorProto()
    second.CopyFrom(first)
    second.name, second.dims[:] = "second", [20, 500]
    shelf.written["second"] = shelf.written["first"].reshape(20, 500)
    output = tmp_path / "out.onnx"
    path = shelf.save(upsampler(shelf, first, second))
    deployconv.rewrite(path, output=output, bench=False)
    check_kept(output, shelf)
    places = external_tensors(output)
    assert places["first"] == places["second"]


def test_a_tensor_without_elements_needs_no_file(shelf: Shelf, tmp_path: Path) -> None:
    """Readers take a length of 0 for "up to the end of the file": it moves into the model."""
    proto = upsampler(shelf, shelf.put("full", normal(300)))
    proto.graph.initializer.append(shelf.put("empty", np.zeros((0, 3), np.float32)))
    output = tmp_path / "out.onnx"
    deployconv.rewrite(shelf.save(proto), output=output, bench=False)
    check_kept(output, shelf)
    assert "empty" not in external_tensors(output)
    whole = onnx.load(output)
    (empty,) = (tensor for tensor in whole.graph.initializer if tensor.name == "empty")
    assert numpy_helper.to_array(empty).shape == (0, 3)


def test_tensors_of_bodies_functions_and_attributes(shelf: Shelf, tmp_path: Path) -> None:
    """Wherever a tensor stands in a model, its bytes go along."""

    def constant_node(name: str, output: str) -> onnx.NodeProto:
        return node("Constant", [], [output], value=shelf.put(name, normal(300), f"{name}.bin"))

    def body(name: str) -> onnx.GraphProto:
        inner = shelf.put(f"{name}_weight", normal(16, 16, 1, 1), f"{name}.bin")
        nodes = [
            constant_node(f"{name}_constant", "c"),
            node("ReduceMean", ["c"], ["m"], keepdims=0),
            node("Conv", ["h0", inner.name], ["v"]),
            node("Add", ["v", "m"], ["out"]),
        ]
        return graph(nodes, [], [value("out", FLOAT, None)], [inner])

    proto = upsampler(shelf)
    bodies = {"then_branch": body("then"), "else_branch": body("else")}
    del proto.graph.node[-1]
    proto.graph.node.extend(
        [
            node("If", ["which"], ["branch"], **bodies),
            node("Shift", ["branch"], ["y"], domain="local"),
        ]
    )
    proto.graph.input.append(value("which", TensorProto.BOOL, []))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    steps = [
        constant_node("function_constant", "c"),
        node("ReduceMean", ["c"], ["m"], keepdims=0),
        node("Add", ["a", "m"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("local", "Shift", ["a"], ["b"], steps, opsets))
    output = tmp_path / "out.onnx"
    done = deployconv.rewrite(shelf.save(proto), output=output, bench=False)
    assert done.parity is not None
    assert done.parity.passed
    check_kept(output, shelf)
    assert {place.location for place in external_tensors(output).values()} == {"out.onnx.data"}


def test_the_model_s_own_data_is_never_the_output(shelf: Shelf) -> None:
    other = shelf.put("other", normal(300), "out.onnx.data")
    path = shelf.save(upsampler(shelf, other))
    before = snapshot(shelf.folder)
    for force in (False, True):
        with pytest.raises(UsageError, match=r"out\.onnx\.data: belongs to the input model"):
            deployconv.rewrite(path, output=shelf.folder / "out.onnx", force=force)
    assert snapshot(shelf.folder) == before


def test_a_name_that_only_another_folder_has_taken(shelf: Shelf, tmp_path: Path) -> None:
    other = shelf.put("other", normal(300), "out.onnx.data")
    output = tmp_path / "out.onnx"
    deployconv.rewrite(shelf.save(upsampler(shelf, other)), output=output, bench=False)
    check_kept(output, shelf)


def test_the_result_is_rewritten_again(shelf: Shelf, tmp_path: Path) -> None:
    """What is written is a model like any other: nothing is left to do, nothing changes."""
    path = shelf.save(upsampler(shelf, shelf.put("other", normal(300))))
    deployconv.rewrite(path, output=tmp_path / "a.onnx", bench=False)
    deployconv.rewrite(tmp_path / "a.onnx", output=tmp_path / "b.onnx", bench=False)
    check_kept(tmp_path / "b.onnx", shelf)
    first, second = (external_tensors(tmp_path / name).keys() for name in ("a.onnx", "b.onnx"))
    assert first == second


def test_weights_that_stay_are_not_read(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(tensor: TensorProto, folder: Path | None) -> Array:
        read.append(tensor.name)
        return read_tensor(tensor, folder)

    monkeypatch.setattr(constants, "read_tensor", counting)
    others = [shelf.put(f"other{index}", normal(64, 1024)) for index in range(128)]
    path = shelf.save(upsampler(shelf, *others))
    tracemalloc.start()
    try:
        output = tmp_path / "out.onnx"
        deployconv.rewrite(path, output=output, verify=False, bench=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(read) == {"w"}
    assert (tmp_path / "out.onnx.data").stat().st_size > 32 << 20
    assert peak < 8 << 20


def test_a_tensor_beyond_two_gigabytes(shelf: Shelf, tmp_path: Path) -> None:
    """In a file that is mostly a hole; only what tensors take of it is copied."""
    other = shelf.put("far", normal(300), "sparse.bin", offset=5 << 30)
    path, output = shelf.save(upsampler(shelf, other)), tmp_path / "out.onnx"
    if (shelf.folder / "sparse.bin").stat().st_blocks * 512 > 1 << 30:
        pytest.skip("not run: this file system stores holes as zeros")
    deployconv.rewrite(path, output=output, verify=False, bench=False)
    check_kept(output, shelf)
    assert output.with_name("out.onnx.data").stat().st_size < 1 << 20


def test_where_the_kernel_cannot_copy(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across file systems, and on systems without copy_file_range, bytes are copied by hand."""
    path = shelf.save(upsampler(shelf, shelf.put("other", normal(700, 700), offset=5)))
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    deployconv.rewrite(path, output=tmp_path / "out.onnx", bench=False)
    check_kept(tmp_path / "out.onnx", shelf)


def test_data_that_ends_while_it_is_copied(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.save(upsampler(shelf, shelf.put("other", normal(700, 700), "other.bin")))

    def cut(*_: object) -> int:
        (shelf.folder / "other.bin").write_bytes(b"short")
        raise OSError

    monkeypatch.setattr(os, "copy_file_range", cut)
    with pytest.raises(UsageError, match=r"'other\.bin' ended early"):
        deployconv.rewrite(path, output=tmp_path / "out.onnx", verify=False, bench=False)
    assert list(tmp_path.glob("out*")) + list(tmp_path.glob(".*")) == []
