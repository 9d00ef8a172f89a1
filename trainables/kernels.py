"""Which library multiplies matrices on a CPU, and layers that ask for it.

Torch hands float32 products to the BLAS it was built with. Its own builds for x86 bring MKL, which on AMD processors
makes no full use of AVX-512; oneDNN, which the same builds bring for convolutions and bfloat16, does, and makes the
products of a transformer's layers in less than half of the time (``docs/benchmarks/step_cost.md``).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from trainables.errors import ConfigError

Kernels = Literal["torch", "onednn"]

_LEAST = 2**20
"""Multiplications of a product below which calling oneDNN from Python takes longer than it saves."""


def has_onednn() -> bool:
    """Whether this torch was built with it."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def check_kernels(kernels: Kernels) -> None:
    """Raise :class:`ConfigError` where this torch does not have them."""
    if kernels == "onednn" and not has_onednn():
        raise ConfigError("train.kernels: this torch was built without oneDNN (allowed: torch)")


def check_compiles(field: str, device: torch.device) -> None:
    """Raise :class:`ConfigError` for ``field`` where ``torch.compile`` finds nothing that compiles for ``device``."""
    try:
        torch.compile(torch.neg, fullgraph=True)(torch.ones(16, device=device))
    except RuntimeError as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(f"{field}: torch.compile does not work here: {why} (allowed: false)") from None


def fastest() -> Kernels:
    """The kernels that are known to be faster on this machine's processor: oneDNN's on AMD with AVX-512."""
    capabilities = torch.cpu.get_capabilities()
    wide = bool(capabilities.get("avx512_f")) and str(capabilities.get("cpu_name", "")).startswith("AMD")
    return "onednn" if wide and has_onednn() else "torch"


def install(network: nn.Module) -> None:
    """Replace, in place, the linear layers and GELUs of ``network`` by :class:`Linear` and :class:`GELU`.

    Parameters stay the same objects under the same names. Classes derived from torch's are left alone.
    """
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear:
            network.set_submodule(name, Linear.of(module))
        elif type(module) is nn.GELU:
            network.set_submodule(name, GELU(module.approximate).train(module.training))


class Linear(nn.Linear):
    """A linear layer whose products, forward and backward, are oneDNN's.

    Where oneDNN gains nothing it is torch's own layer: off the CPU, in other types than float32 (autocast included),
    compiled, and where the product is small.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> Linear:
        """The same layer with the same parameters."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if not _serves(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if not torch.is_grad_enabled():
            return _linear(input, self.weight, self.bias)
        out: Tensor = _Linear.apply(input, self.weight, self.bias)
        return out


class GELU(nn.GELU):
    """The activation, which keeps its derivative for the backward instead of its input; the bits are torch's.

    One backward costs what it did; each further one through the same graph, of which methods that see the gradient of
    every task make K, is one product instead of an error function.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        plain = input.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
        if plain or not (torch.is_grad_enabled() and input.requires_grad):
            return F.gelu(input, approximate=self.approximate)
        out: Tensor = _GELU.apply(input, self.approximate)
        return out


def inner_products(rows: Tensor, kernels: Kernels) -> Tensor:
    """(K, K) of contiguous (K, d), ``rows @ rows.T``."""
    # Of eight rows or fewer MKL makes it as fast or faster: at K = 4 in two fifths of the time.
    return product(rows, rows, kernels if len(rows) > 8 and 8 * rows.numel() >= _LEAST else "torch")


def product(one: Tensor, other: Tensor, kernels: Kernels) -> Tensor:
    """(m, n) of (m, d) and (n, d), ``one @ other.T``; torch's where the others do not multiply such tensors."""
    if kernels == "onednn" and one.device.type == "cpu" and one.dtype == other.dtype == torch.float32:
        return _linear(one, other, None)
    return one @ other.T


def _serves(input: Tensor, weight: Tensor) -> bool:
    return (
        input.device.type == "cpu"
        and input.dtype == weight.dtype == torch.float32
        and input.numel() * weight.shape[0] >= _LEAST
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    # Of the two factors of a weight's gradient, oneDNN wants the first transposed in memory. That is the narrower one:
    # the input once, in the forward, or what comes back, in every backward.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.narrows = weight.shape[0] <= x.shape[-1]
        kept = None
        if ctx.needs_input_grad[1]:
            transposed = x.reshape(-1, x.shape[-1]).t()
            kept = transposed if ctx.narrows else transposed.contiguous()
        ctx.save_for_backward(kept, weight)
        return _linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_out: Tensor) -> tuple[Tensor | None, ...]:
        transposed, weight = ctx.saved_tensors
        at_x = _linear(at_out, weight.t(), None) if ctx.needs_input_grad[0] else None
        flat = at_out.reshape(-1, at_out.shape[-1])
        at_weight = None
        if transposed is not None:
            if ctx.narrows:
                at_weight = _linear(flat.t(), transposed, None)
            else:
                at_weight = _linear(transposed, flat.t(), None).t().contiguous()
        return at_x, at_weight, flat.sum(0) if ctx.needs_input_grad[2] else None


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate=approximate))
        return F.gelu(x, approximate=approximate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, at_out: Tensor) -> tuple[Tensor | None, ...]:
        (derivative,) = ctx.saved_tensors
        return at_out * derivative, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``; ``weight`` may be the transpose of a contiguous tensor and is then not copied."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out
