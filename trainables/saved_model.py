"""A trained network on disk, and its predictions: weights as safetensors, everything else as JSON. Nothing in it is
unpickled or run.

MLflow finds :func:`_load_pyfunc` by this module's name (`loader_module`), so that a model is loaded by installed code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from trainables.errors import CheckpointError, UserError
from trainables.kernels import Kernels, has_onednn, install
from trainables.models.config import ModelConfig
from trainables.models.network import MultiTaskNetwork, build_network

WEIGHTS = "weights.safetensors"
NETWORK = "network.json"
"""``model`` (its config), ``tasks`` (name to channels), ``image_shape``, ``kernels`` (``train.kernels``; torch's where
an older version left it out)."""
EXAMPLE = "example.npy"
FORMAT = 1


def save(
    folder: Path,
    network: MultiTaskNetwork,
    config: ModelConfig,
    example: NDArray[np.float32],
    kernels: Kernels = "torch",
) -> None:
    """Write a network; a reader sees all of it or nothing.

    Args:
        folder: is replaced if it is there.
        network: trained.
        config: it was built from.
        example: (1, 3, H, W), or (1, N, F) of molecules: an input.
        kernels: what multiplied its matrices on a CPU, and will where the reader's torch has it; others predict the
            same up to rounding.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, part / WEIGHTS)
    about = {
        "format": FORMAT,
        "model": config.to_dict(),
        "tasks": channels(network),
        "image_shape": list(network.image_shape),
        "kernels": kernels,
    }
    (part / NETWORK).write_text(json.dumps(about, indent=1), encoding="utf-8")
    np.save(part / EXAMPLE, example, allow_pickle=False)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def channels(network: MultiTaskNetwork) -> dict[str, int]:
    """Task name to the channels of its prediction."""
    return {task: int(next(iter(network.task_parameters(task))).shape[0]) for task in network.tasks}


class Predictor:
    """A trained network that takes arrays and gives arrays.

    Attributes:
        network: in evaluation mode, on the CPU.
    """

    def __init__(self, network: MultiTaskNetwork) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def predict(self, inputs: NDArray[Any], params: Mapping[str, Any] | None = None) -> dict[str, NDArray[np.float32]]:
        """The prediction of every task, as its metric takes it: of classes the logits.

        Args:
            inputs: (B, 3, H, W) images, normalised by ImageNet's mean and standard deviation, or (B, N, F) molecules.
            params: MLflow's; there are none.

        Returns:
            (B, C, H, W) float32 by task; H and W are 1 for molecules.
        """
        outputs = self.network(torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)))
        return {task: output.float().numpy() for task, output in outputs.items()}


def load(folder: Path) -> Predictor:
    """Read what :func:`save` wrote.

    Raises:
        CheckpointError: it is damaged, of another format, or its backbone is not installed.
    """
    try:
        about = json.loads((folder / NETWORK).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}; this version reads {FORMAT}")
        config = ModelConfig.model_validate({**about["model"], "pretrained": False})
        height, width = (int(size) for size in about["image_shape"])
        network = build_network(config, {str(k): int(v) for k, v in about["tasks"].items()}, (height, width), seed=0)
        network.load_state_dict(load_file(folder / WEIGHTS))
        if about.get("kernels", "torch") == "onednn" and has_onednn():
            install(network)
    except UserError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of JSON, safetensors and torch
        raise CheckpointError(f"{folder}: no model of mtl-study, or a damaged one ({error})") from None
    return Predictor(network)


def _load_pyfunc(path: str) -> Predictor:
    return load(Path(path))
