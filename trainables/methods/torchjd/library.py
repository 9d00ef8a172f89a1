"""What TorchJD offers, how its objects are made from a config, and what they remember."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainables.errors import ConfigError, unknown

AGGREGATORS: Final = (
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "Constant",
    "DualProj",
    "ExcessMTL",
    "FairGrad",
    "GradDrop",
    "GradVac",
    "IMTLG",
    "Krum",
    "MGDA",
    "Mean",
    "NashMTL",
    "PCD",
    "PCGrad",
    "Random",
    "Sum",
    "TrimmedMean",
    "UPGrad",
)
"""Those of ``torchjd.aggregation`` 0.18 that turn a Jacobian into one gradient."""

SCALARIZERS: Final = (
    "COSMOS",
    "Constant",
    "DWA",
    "FAMO",
    "GeometricMean",
    "IMTLL",
    "Mean",
    "PBI",
    "Random",
    "STCH",
    "Sum",
    "UW",
)
"""Those of ``torchjd.scalarization`` 0.18."""

PREFIX: Final = "torchjd:"
SCALARIZER_PREFIX: Final = "torchjd:scalarization."

Option = bool | int | float | str | list[float]
"""What an option of a constructor may be given as; a list becomes a tensor."""

_GIVEN = {"shape", "n_tasks"}
"""Parameters of constructors that the number of tasks decides."""

_INTERNAL = frozenset(vars(nn.Module()))


def aggregator_class(name: str) -> type[nn.Module]:
    """The class behind a method name, ``torchjd:UPGrad``; raises :class:`ConfigError` where TorchJD is missing."""
    return _class("torchjd.aggregation", name.removeprefix(PREFIX))


def sees(aggregator: nn.Module) -> Literal["gramian", "jacobian"] | None:
    """What it makes its weights of; ``None`` where it makes none, but a gradient at once."""
    library = importlib.import_module("torchjd.aggregation")
    if isinstance(aggregator, library.GramianWeightedAggregator):
        return "gramian"
    return "jacobian" if isinstance(aggregator, library.WeightedAggregator) else None


def scalarizer_class(name: str) -> type[nn.Module]:
    """The class behind a method name, ``torchjd:scalarization.UW``; raises :class:`ConfigError` where TorchJD is
    missing."""
    return _class("torchjd.scalarization", name.removeprefix(SCALARIZER_PREFIX))


def _class(module: str, name: str) -> type[nn.Module]:
    try:
        found: type[nn.Module] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"method.name: '{name}' needs the extra 'torchjd' of mtl-study ({error})") from None
    except AttributeError:
        raise ConfigError(f"method.name: the TorchJD that is installed has no '{name}'; 0.18 does") from None
    return found


def build(
    cls: type[nn.Module],
    options: Mapping[str, Option],
    tasks: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> nn.Module:
    """An aggregator or scalarizer for K tasks.

    Args:
        cls: its class.
        options: arguments of its constructor by name; lists become tensors.
        tasks: K, which constructors that want it are given.
        dtype: of tensors among the options.
        device: of tensors among the options.

    Raises:
        ConfigError: an option is unknown, missing or refused, or a package that the class needs is missing.
    """
    parameters = inspect.signature(cls).parameters
    allowed = [
        name
        for name, parameter in parameters.items()
        if name not in _GIVEN and name != "projector" and not inspect.isfunction(parameter.default)
    ]
    arguments: dict[str, Any] = dict.fromkeys(_GIVEN & set(parameters), tasks)
    for name, value in options.items():
        if name not in allowed:
            raise ConfigError(f"method.options: {unknown(f'option of {cls.__name__}', name, allowed)}")
        wants_tensor = "Tensor" in str(parameters[name].annotation)
        if isinstance(value, list) != (wants_tensor and not _is_number(value)):
            raise ConfigError(f"method.options.{name}: a {'list of numbers' if wants_tensor else 'number'} is wanted")
        arguments[name] = torch.tensor(value, dtype=dtype, device=device) if isinstance(value, list) else value
    missing = [name for name in allowed if parameters[name].default is parameters[name].empty and name not in options]
    if missing:
        raise ConfigError(f"method.options.{missing[0]} is missing: {cls.__name__} has no default for it")
    try:
        return cls(**arguments).to(device=device, dtype=dtype)
    except ImportError as error:
        raise ConfigError(f"method.name: '{cls.__name__}' needs the extra 'torchjd' of mtl-study ({error})") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"method.options: {_first_line(error)}") from None


def rehearse(made: nn.Module, example: Tensor) -> None:
    """Call what was made once; raises :class:`ConfigError` where it refuses input of this shape."""
    try:
        with torch.random.fork_rng(devices=[]):
            made(example)
    except Exception as error:  # noqa: BLE001 - the libraries below TorchJD raise types of their own
        raise ConfigError(f"method: {type(made).__name__} refuses {len(example)} tasks: {_first_line(error)}") from None


@contextmanager
def drawing(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Draws from the process's generators come from ``generator`` and leave the others as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _is_number(value: Option) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---- state -------------------------------------------------------------------------------------------


def state_of(module: nn.Module) -> dict[str, Any]:
    """All that an aggregator or scalarizer remembers: tensors, numbers, text, lists and dicts of these.

    ``nn.Module.state_dict`` is not enough: some of TorchJD's classes keep their state in plain attributes, others in
    buffers that exist only after the first call.
    """
    parts: dict[str, Any] = {}
    for path, part in module.named_modules():
        held = {name: value for name, value in vars(part).items() if name not in _INTERNAL} | part._buffers
        codes = ((name, _encode(value)) for name, value in held.items())
        parts[path] = {name: code for name, code in codes if code is not None}
    return {"parameters": {name: p.detach().clone() for name, p in module.named_parameters()}, "parts": parts}


def restore(module: nn.Module, state: Mapping[str, Any], device: torch.device) -> None:
    """Put back what :func:`state_of` gave, in a module made alike."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state["parameters"][name])
    for path, part in module.named_modules():
        for name, code in state["parts"][path].items():
            setattr(part, name, _decode(code, part, device))
        if hasattr(part, "_init_optim_problem") and part.step > 0:
            # Nash-MTL states its convex program on its first call.
            part._init_optim_problem()


def _encode(value: Any) -> dict[str, Any] | None:
    """A tagged copy; ``None`` for what is no state (functions, modules, convex programs)."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    if isinstance(value, Tensor):
        return {"tensor": value.detach().clone()}
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(value.copy())}
    if isinstance(value, (torch.dtype, torch.device)):
        return {type(value).__name__: str(value)}
    if isinstance(value, torch.optim.Adam):
        return {"adam": value.state_dict()}
    if isinstance(value, (list, tuple)):
        codes = [_encode(item) for item in value]
        return None if None in codes else {type(value).__name__: codes}
    return None


def _decode(code: Mapping[str, Any], part: nn.Module, device: torch.device) -> Any:
    ((kind, value),) = code.items()
    if kind == "tensor":
        return value.to(device, copy=True)
    if kind == "array":
        return value.numpy().copy()
    if kind == "dtype":
        return getattr(torch, value.removeprefix("torch."))
    if kind == "device":
        return torch.device(value)
    if kind == "adam":
        optimizer = torch.optim.Adam(part.parameters())
        optimizer.load_state_dict(value)
        return optimizer
    if kind in {"list", "tuple"}:
        items = [_decode(item, part, device) for item in value]
        return items if kind == "list" else tuple(items)
    return value
