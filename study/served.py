"""A trained network as an MLflow model: signature, input example, loadable by ``mlflow.pyfunc.load_model``.

It is loaded by installed code (:mod:`trainables.saved_model`) from safetensors and JSON: nothing in a model folder is
unpickled or run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study import schema
from trainables import saved_model

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODELS_TAG = "mlflow.log-model.history"
"""By which MLflow's UI knows that a run has a model."""
_LOADER = "trainables.saved_model"
_DECIMALS = 3
"""Of the input example, which MLflow keeps as JSON."""


def log_model(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Put a network that a worker left in ``folder`` beside its run, and remove the folder; again, it does nothing.

    Raises:
        FileNotFoundError: there is neither the folder nor, beside the run, the model.
    """
    if not folder.is_dir():
        if any(each.path == schema.MODEL_FOLDER for each in client.list_artifacts(run_id)):
            return
        raise FileNotFoundError(f"{folder}: the trained network is gone")
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / schema.MODEL_FOLDER
        _make(made, folder, run_id)
        client.log_artifacts(run_id, str(made), schema.MODEL_FOLDER)
        _announce(client, run_id, made)
    shutil.rmtree(folder, ignore_errors=True)


def _make(made: Path, folder: Path, run_id: str) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    about = json.loads((folder / saved_model.NETWORK).read_text(encoding="utf-8"))
    example = np.load(folder / saved_model.EXAMPLE, allow_pickle=False)
    single = np.dtype(np.float32)
    predictions = saved_model.load(folder).predict(example)
    outputs: list[ColSpec | TensorSpec] = [
        TensorSpec(single, (-1, *value.shape[1:]), task) for task, value in predictions.items()
    ]
    mlflow.pyfunc.save_model(
        made,
        loader_module=_LOADER,
        data_path=str(folder),
        mlflow_model=Model(artifact_path=schema.MODEL_FOLDER, run_id=run_id),
        signature=ModelSignature(Schema([TensorSpec(single, (-1, *example.shape[1:]))]), Schema(outputs)),
        input_example=example.round(_DECIMALS),
        pip_requirements=_requirements(),
        metadata={"backbone": about["model"]["backbone"], "tasks": list(about["tasks"])},
    )


def _requirements() -> list[str]:
    """What loads the model: this version of this package. Run from its checkout, it has no version to ask for."""
    try:
        return [f"mtl-study=={version('mtl-study')}"]
    except PackageNotFoundError:
        return []


def _announce(client: MlflowClient, run_id: str, made: Path) -> None:
    from mlflow.models import Model

    told = Model.load(str(made)).get_tags_dict()
    client.set_tag(run_id, MODELS_TAG, json.dumps([told]))
