"""Aggregation of given task gradients: the methods' formulas, without a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.errors import ConfigError, unknown
from trainables.methods.aligned_mtl import AlignedMTL
from trainables.methods.cagrad import CAGrad
from trainables.methods.gd import GD
from trainables.methods.graddrop import GradDrop, graddrop
from trainables.methods.gramian import GradientMethod, GramianMethod
from trainables.methods.gramian.method import clip, scale_factor
from trainables.methods.imtl import IMTLG
from trainables.methods.mgda import MGDA
from trainables.methods.nash_mtl import NashMTL
from trainables.methods.pcgrad import PCGrad

AGGREGATORS: dict[str, type[GD] | type[GradientMethod]] = {
    "aligned_mtl": AlignedMTL,
    "cagrad": CAGrad,
    "gd": GD,
    "graddrop": GradDrop,
    "imtl_g": IMTLG,
    "mgda": MGDA,
    "nash_mtl": NashMTL,
    "pcgrad": PCGrad,
}

# Formulas as in the papers: what the authors' training code does to the result afterwards is asked for by name.
_FORMULA: dict[str, dict[str, Any]] = {"cagrad": {"rescale": 0, "scale": "mean"}, "nash_mtl": {"max_norm": 0.0}}


def aggregate(
    name: str, jacobian: Tensor, *, generator: torch.Generator | None = None, seed: int = 0, **hyperparameters: Any
) -> Tensor:
    """The direction d that a method makes of the task gradients.

    By default in the scale of the paper's formula: GD, GradDrop, PCGrad and Aligned-MTL sum, MGDA and IMTL-G have
    weights of sum 1, CAGrad is ``g0 + c |g0| g_w / |g_w|`` around the mean g0, Nash-MTL is not clipped.

    Args:
        name: one of :data:`AGGREGATORS`.
        jacobian: (K, d) floating, one task gradient per row; zero, equal and opposite rows are welcome.
        generator: of the draws of ``graddrop`` and ``pcgrad``; a new one from ``seed`` where not given.
        seed: see ``generator``.
        **hyperparameters: fields of the method's config that bear on the formula (``c``, ``rescale``, ``leak``,
            ``scale_mode``, ``scale``, ``max_norm``).

    Returns:
        (d,) of the dtype and on the device of ``jacobian``; all NaN where an entry of it is not finite.

    Raises:
        ConfigError: no such aggregator or hyperparameter, or ``jacobian`` is no matrix of floats with a row.
    """
    if name not in AGGREGATORS:
        raise ConfigError(f"aggregate: {unknown('aggregator', name, AGGREGATORS)}")
    if jacobian.dim() != 2 or not jacobian.is_floating_point() or len(jacobian) == 0:
        raise ConfigError(
            f"jacobian: a (K, d) floating tensor with K >= 1 is wanted, got {tuple(jacobian.shape)} of {jacobian.dtype}"
        )
    method = AGGREGATORS[name]
    config: Any = method.Config.parse({"name": name, **_FORMULA.get(name, {}), **hyperparameters}, f"aggregate.{name}")
    generator = generator if generator is not None else torch.Generator().manual_seed(seed)
    rows = jacobian.detach().double()
    largest = rows.abs().max() if rows.numel() else rows.new_zeros(())
    if not bool(largest.isfinite()):
        return torch.full_like(jacobian[0], float("nan"))
    if rows.numel() == 0 or not bool(largest > 0):
        return torch.zeros_like(jacobian[0])
    # Squares of very small and very large numbers would leave the range of floats.
    rows = rows / largest
    if not issubclass(method, GradientMethod):
        return (rows.sum(0) * largest).to(jacobian.dtype)
    if issubclass(method, GramianMethod):
        weights, _ = method.solve(config, rows @ rows.T, generator)
        direction = torch.from_numpy(weights).to(rows.device) @ rows
    else:
        noise = torch.rand(rows.shape[1], generator=generator, device=generator.device).to(rows.device)
        direction = graddrop(rows, noise, config.leak)
    direction = direction * scale_factor(method.native_scale, config.scale, len(rows)) * largest**method.degree
    if config.max_norm > 0.0:
        clip([direction], config.max_norm)
    return direction.to(jacobian.dtype)
