"""What a run leaves beside its numbers, read back as a stranger would: through MLflow's own client and loaders."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
import pytest
import torch
from little import QUICK, files, plan, run, trials
from mlflow.models import Model
from PIL import Image

from analysis.records import Records
from analysis.tables import make_table
from study import schema
from study.home import Home
from study.runner import task_of
from study.served import MODELS_TAG, log_model
from study.sink import MlflowSink
from study.store import open_client
from study.verify import verify
from trainables import saved_model
from trainables.config import data_set_of
from trainables.errors import CheckpointError
from trainables.log import TrialLog
from trainables.session import Session


def record(home: Home, **settings: Any) -> str:
    outcome, shown = run(home, plan(), replace(QUICK, **settings))
    assert outcome.complete
    return shown


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The little study, with models."""
    home = Home(tmp_path_factory.mktemp("artifacts") / "home")
    record(home, save_models=True)
    return home


@pytest.fixture
def tracking(home: Home) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(home.tracking_uri)
    yield
    mlflow.set_tracking_uri(before)


# ---- the model ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tracking")
def test_pyfunc_loads_the_network_that_was_tested(home: Home, data_root: Path) -> None:
    run = trials(home)["Selective | seed 0"]
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/{schema.MODEL_FOLDER}")
    example = loaded.input_example
    predictions = loaded.predict(example)
    # The reference: the same trial trained here, bit for bit the same network, without MLflow.
    (trial,) = [trial for trial in plan().trials if trial.label == "Selective | seed 0"]
    session = Session(task_of(trial, home, "cpu"))
    while not session.advance(60.0).over:
        pass
    network = session.trainer.network.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(example.astype(np.float32)))
    assert set(predictions) == {"normal", "reshading", "depth_zbuffer"}
    for task, value in predictions.items():
        np.testing.assert_array_equal(value, expected[task].numpy())


@pytest.mark.usefixtures("tracking")
def test_the_model_has_a_signature_and_a_real_sample_as_its_example(home: Home) -> None:
    run = trials(home)["GD | seed 0"]
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/{schema.MODEL_FOLDER}")
    signature = loaded.metadata.signature
    (entry,) = signature.inputs.inputs
    assert (entry.shape, str(entry.type)) == ((-1, 3, 32, 32), "float32")
    assert {each.name: each.shape for each in signature.outputs.inputs} == {
        "normal": (-1, 3, 32, 32),
        "reshading": (-1, 3, 32, 32),
        "depth_zbuffer": (-1, 1, 32, 32),
    }
    config = plan().trials[0].config
    data_set_of(config).prepare(config.data, home.data)
    image, _ = data_set_of(config).open(config.data, home.data, "val").batch(np.arange(1), ())
    np.testing.assert_allclose(loaded.input_example, image.numpy(), atol=5.1e-4)
    several = loaded.predict(np.repeat(loaded.input_example.astype(np.float32), 3, axis=0))
    assert several["normal"].shape == (3, 3, 32, 32)
    with pytest.raises(mlflow.MlflowException, match="shape"):
        loaded.predict(np.zeros((1, 3, 16, 16), np.float32))


def test_a_model_folder_holds_nothing_that_is_unpickled_or_run(home: Home, tmp_path: Path) -> None:
    run = trials(home)["GD | seed 0"]
    there = Path(open_client(home).download_artifacts(run.info.run_id, schema.MODEL_FOLDER, str(tmp_path)))
    names = {path.suffix or path.name for path in there.rglob("*") if path.is_file()}
    assert names == {"MLmodel", ".yaml", ".txt", ".json", ".safetensors", ".npy"}
    flavor = Model.load(str(there)).flavors["python_function"]
    assert flavor["loader_module"] == "trainables.saved_model"
    assert json.loads(run.data.tags[MODELS_TAG])[0]["artifact_path"] == schema.MODEL_FOLDER
    assert not list((home.path / "models").iterdir())


def test_without_being_asked_for_no_model_is_kept_and_the_key_is_the_same(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "bare")
    record(other)
    bare = trials(other)
    assert {run.data.tags[schema.TRIAL_KEY] for run in bare.values()} == {
        run.data.tags[schema.TRIAL_KEY] for run in trials(home).values()
    }
    assert all(schema.MODEL_FOLDER not in files(other, each) for each in bare.values())
    assert "5 trials were finished without a model" in record(other, save_models=True)


def test_delivering_a_model_twice_is_delivering_it_once_and_losing_it_loses_no_result(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, client = trials(home)["GD | seed 0"], open_client(home)
    before = client.get_run(run.info.run_id).data.tags[MODELS_TAG]
    log_model(client, run.info.run_id, home.model("gone"))
    assert client.get_run(run.info.run_id).data.tags[MODELS_TAG] == before
    fresh = client.create_run(run.info.experiment_id)
    with caplog.at_level(logging.WARNING):
        MlflowSink(client).apply(fresh.info.run_id, "model", {"folder": str(tmp_path / "gone")}, None)
    client.delete_run(fresh.info.run_id)
    assert "has no model" in caplog.text


def test_a_model_waits_for_a_store_that_is_away(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, client = trials(home)["GD | seed 0"], open_client(home)
    there = Path(client.download_artifacts(run.info.run_id, schema.MODEL_FOLDER, str(tmp_path)))
    (left,) = (path.parent for path in there.rglob(saved_model.NETWORK))
    fresh = client.create_run(run.info.experiment_id).info.run_id
    sink, whole = MlflowSink(client), client.log_artifacts

    def away(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(client, "log_artifacts", away)
    with pytest.raises(ConnectionError):
        sink.apply(fresh, "model", {"folder": str(left)}, None)
    assert left.is_dir()
    monkeypatch.setattr(client, "log_artifacts", whole)
    for _ in range(2):
        sink.apply(fresh, "model", {"folder": str(left)}, None)
    assert not left.exists()
    assert json.loads(client.get_run(fresh).data.tags[MODELS_TAG])[0]["run_id"] == fresh
    client.delete_run(fresh)


@pytest.mark.parametrize("name", [saved_model.WEIGHTS, saved_model.NETWORK])
def test_a_damaged_model_is_refused_in_one_line(home: Home, tmp_path: Path, name: str) -> None:
    run = trials(home)["GD | seed 0"]
    folder = Path(open_client(home).download_artifacts(run.info.run_id, schema.MODEL_FOLDER, str(tmp_path)))
    (damaged,) = folder.rglob(name)
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="no model of mtl-study, or a damaged one"):
        saved_model.load(damaged.parent)


# ---- system metrics, log, images ---------------------------------------------------------------------


def test_system_metrics_are_recorded_and_are_no_results(home: Home) -> None:
    run = trials(home)["GD | seed 0"]
    taken = {name: value for name, value in run.data.metrics.items() if name.startswith(f"{schema.SYSTEM}/")}
    assert set(taken) == {
        "system/process_cpu_percentage",
        "system/process_memory_megabytes",
        "system/system_memory_usage_percentage",
    }
    assert 10 < taken["system/process_memory_megabytes"] < 100_000
    assert 0 < taken["system/system_memory_usage_percentage"] <= 100
    assert not any(map(schema.decided, taken))
    history = open_client(home).get_metric_history(run.info.run_id, "system/process_memory_megabytes")
    assert len(history) >= 2, "one point per report"
    verdicts = list(verify(home, sample=2))
    assert [verdict.result for verdict in verdicts] == ["same", "same"], verdicts


def test_the_log_says_where_it_ran_and_how_it_went(home: Home) -> None:
    client = open_client(home)
    for name, trial in trials(home).items():
        log = Path(client.download_artifacts(trial.info.run_id, schema.LOG_FILE)).read_text().splitlines()
        assert f"'{name}'" in log[0]
        assert "device cpu" in log[0]
        assert any("iteration 3: val/" in line for line in log)
        assert any("test/" in line for line in log)
        assert "done after" in log[-1]


def test_warnings_of_the_training_are_in_the_log_and_still_heard(caplog: pytest.LogCaptureFixture) -> None:
    log = TrialLog()
    with log.listening():
        logging.getLogger("somebody").warning("a line\nand another")
        logging.getLogger("somebody").info("small talk")
    logging.getLogger("somebody").warning("after it")
    (line,) = log.take()
    assert line.endswith("WARNING: a line and another")
    assert "a line" in caplog.text
    assert log.take() == []


def test_affinity_maps_are_images_of_their_step(home: Home) -> None:
    found = trials(home)
    assert files(home, found["GD | seed 0"], schema.IMAGES_FOLDER) == []
    run = found["Selective | seed 0"]
    assert run.data.tags["mlflow.loggedImages"] == "True"
    names = files(home, run, schema.IMAGES_FOLDER)
    full = [name for name in names if name.endswith(".png")]
    # As MLflow's client names them: name, step, time, id, with + between.
    parts = [Path(name).stem.split("+") for name in full]
    assert {(part[0], part[1], part[3]) for part in parts} == {("affinity", "step", "timestamp")}
    with np.load(open_client(home).download_artifacts(run.info.run_id, schema.HISTORY_FILE)) as history:
        assert {int(part[2]) for part in parts} <= set(history["iteration"].tolist())
        assert max(int(part[2]) for part in parts) == history["iteration"][-1]
    assert len(names) == 2 * len(full)
    with Image.open(open_client(home).download_artifacts(run.info.run_id, full[0])) as picture:
        assert min(picture.size) > 100
        assert len(picture.getcolors(1 << 20)) > 10


# ---- numbers and notes -------------------------------------------------------------------------------


def test_delta_m_beside_a_run_is_that_of_the_table(home: Home) -> None:
    table = make_table(Records.load(home.path, "little"))
    recorded = {name: run.data.metrics.get(schema.DELTA_M) for name, run in trials(home).items()}
    assert {name for name, value in recorded.items() if value is None} == {
        name for name in recorded if name.startswith("Single")
    }
    for label in ("GD", "Selective"):
        assert recorded[f"{label} | seed 0"] == pytest.approx(table.loc[label, "delta_m"])
