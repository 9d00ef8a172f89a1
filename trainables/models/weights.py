"""Published weights from files on this machine: found, identified, loaded. Never downloaded."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import WeightsError
from trainables.models.backbones import BackboneSpec, backbone_spec, build_trunk, load_npz, load_state
from trainables.models.base import Backbone
from trainables.models.config import ModelConfig

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
"""Kinds of weight files. ``.pth``, ``.pt`` and ``.bin`` are read with ``weights_only``: no code in them runs."""

_CACHED_NAMES = ("model.safetensors", "pytorch_model.bin")
_UNREADABLE = (
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class AbsentWeightsError(WeightsError):
    """Published weights are not in this machine's cache: enough to plan, not to train."""


def weights_file(config: ModelConfig) -> Path | None:
    """The file that ``config`` starts from; ``None`` where it starts from random weights.

    Raises:
        AbsentWeightsError: published weights are not in the cache; the message says how to put them there.
        WeightsError: there is no such file, or no weights are published.
        ConfigError: the backbone is unknown.
    """
    if config.pretrained is False:
        return None
    spec = _vision(backbone_spec(config.backbone))
    if config.pretrained is True:
        return _cached(spec)
    path = Path(config.pretrained).expanduser()
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"model.pretrained: {path}: a file ending in {', '.join(SUFFIXES)} is wanted")
    if not path.is_file():
        raise WeightsError(f"model.pretrained: {path.absolute()}: no such file")
    return path


def weights_fingerprint(config: ModelConfig) -> str | None:
    """sha256, in hex, of the weight file; ``None`` where training starts from random weights.

    Raises as :func:`weights_file` does.
    """
    path = weights_file(config)
    if path is None:
        return None
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"model.pretrained: {path}: cannot be read: {error.strerror}") from None


def load_weights(trunk: nn.Module, spec: Backbone, path: Path) -> None:
    """Copy the weights in ``path`` into ``trunk``, its position embedding bicubically resized to the trunk's grid. What
    was loaded, skipped and resized is logged.

    Raises:
        WeightsError: the file is damaged, or holds something else than weights of this backbone.
    """
    spec = _vision(spec)
    left_out: tuple[str, ...] = ()
    try:
        if path.suffix == ".npz":
            state, left_out = _read_npz(spec, path)
        else:
            state = _read_tensors(path)
    except _UNREADABLE as error:
        raise WeightsError(f"{path}: not a readable weight file: {_reason(error)}") from None
    fit = load_state(trunk, spec, state, str(path))
    logger.info("%s: %s", path, replace(fit, skipped=(*left_out, *fit.skipped)))


def _vision(spec: Backbone) -> BackboneSpec:
    """The backbone, where it is one of those that weights are published for."""
    if not isinstance(spec, BackboneSpec):
        raise WeightsError(f"model.pretrained: {spec.name} starts from random weights; false is wanted")
    return spec


def _cached(spec: BackboneSpec) -> Path:
    if spec.repo is None:
        raise WeightsError(
            f"model.pretrained: no weights are published for {spec.name}; give the path of a file, or false"
        )
    from huggingface_hub import constants, try_to_load_from_cache

    for name in _CACHED_NAMES:
        found = try_to_load_from_cache(spec.repo, name, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    raise AbsentWeightsError(
        f"model.pretrained: {spec.repo} is not in the Hugging Face cache {constants.HF_HUB_CACHE}, and nothing is "
        f"downloaded at run time; get it with 'hf download {spec.repo} {_CACHED_NAMES[0]}' where there is a network, "
        "and copy the cache here or name the file as model.pretrained"
    )


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Cached by size and time: a study asks once per trial, and the largest file is over a gigabyte."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(os.fspath(path)))
        except SafetensorError as error:
            raise ValueError(str(error)) from None
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError("it holds no mapping from name to tensor")
    return content


def _read_npz(spec: BackboneSpec, path: Path) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """A JAX release as a timm state, by way of a trunk of its own grid: resizing is then the same for every format. And
    the names of the classifier's entries, which are no part of it."""
    import numpy as np

    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz archive")
    with np.load(path) as arrays:
        names = [name for name in arrays.files if name.endswith(("posembed_input/pos_embedding", "pos_embedding"))]
        if not names:
            raise ValueError("it holds no position embedding")
        if any(f"encoderblock_{spec.depth}/" in name for name in arrays.files):
            raise ValueError(f"it has more than the {spec.depth} blocks of {spec.name}")
        tokens = arrays[names[0]].shape[-2] - spec.class_positions
        classifier = tuple(name for name in arrays.files if name.startswith(("head/", "pre_logits/")))
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"its position embedding of {tokens} patches is not square")
    native = build_trunk(spec, (side * spec.patch, side * spec.patch))
    load_npz(native, os.fspath(path))
    return native.state_dict(), classifier


def _reason(error: BaseException) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, or is not a PyTorch file"
    return (str(error).strip().splitlines() or ["it is empty or cut short"])[0]
