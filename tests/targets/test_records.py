"""The recorded runs of toolchains are whole, and name forms that exist."""

from __future__ import annotations

import onnx
import pytest
from matrix.forms import FORMS
from matrix.record import EXPORTED, Record, Run, read, records, write

RECORDS = records()


def test_there_are_43_forms() -> None:
    assert len(FORMS) == 43


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_a_valid_model_and_the_same_each_time(name: str) -> None:
    model = FORMS[name].model()
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == FORMS[name].model().SerializeToString(
        deterministic=True
    )
    assert FORMS[name].input().shape == FORMS[name].sizes()


@pytest.mark.parametrize("target", RECORDS)
def test_a_record_has_every_form_as_exported(target: str) -> None:
    record = RECORDS[target]
    assert record.target == target
    assert record.version
    assert record.date
    exported = [run.form for run in record.runs if run.spelling == EXPORTED]
    assert record.not_run or exported == list(FORMS)


@pytest.mark.parametrize("target", RECORDS)
def test_a_run_that_is_not_right_says_why(target: str) -> None:
    for run in RECORDS[target].runs:
        assert run.form in FORMS
        assert run.words or run.outcome in ("right", "converted"), run
        assert "/tmp" not in run.words, run


def test_a_record_is_read_as_it_was_written(tmp_path) -> None:
    runs = (
        Run("k2s2", EXPORTED, "right", error=1e-7, notes={"cycles": 3}),
        Run("k2s2", "crop-dcr", "refused", "no DepthToSpace"),
    )
    record = Record("npu", "npu 1.0", "2026-11-29", runs, ("npu==1.0",))
    assert read(write(record, tmp_path)) == record
    assert record.of("k2s2", "crop-dcr") == runs[1]
    assert record.of("k2s2", "pad-dcr") is None


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="no outcome 'fine'"):
        Run("k2s2", EXPORTED, "fine")  # type: ignore[arg-type]
