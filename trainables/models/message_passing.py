"""Message passing between the atoms of a molecule, in plain torch on padded batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data.base import InputKind
from trainables.errors import ConfigError

COORDINATES = 3
"""Numbers of an atom that are its place, in angstrom; they come last, after the one-hot element."""

REACH = 6.0
"""Distance of the last Gaussian of the radial basis, in angstrom. Beyond it the linear term alone tells distances
apart."""

TYPICAL_ATOMS = 18.0
"""Sums over atoms are divided by this, about the mean number of atoms in QM9, so that they are of order 1."""


class MessagePassing(nn.Module):
    """Molecules to one vector each: every atom hears every other through a filter that depends on their distance.

    A layer's message to atom i is ``sum_j W(d_ij) h_j`` with a matrix W linear in a radial basis of the distance: the
    edge-conditioned convolution of Gilmer et al. (2017), which the field's QM9 networks use, with a linear edge
    network. Being linear, it is one batched matrix product without any tensor of all pairs and channels. Atoms are
    then updated by a residual MLP, and pooled by sum and by mean. Invariant to rotations, translations, the order of
    the atoms and the padding.

    Args:
        elements: kinds of atoms.
        dim: width of an atom's and of the molecule's vector.
        depth: number of layers.
        radial: number of Gaussians in the radial basis.
        drop_path: rate of stochastic depth at the last layer, for each molecule; it grows linearly from 0 at the first.
    """

    centers: Tensor

    def __init__(self, elements: int, dim: int, depth: int, radial: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.elements = elements
        self.register_buffer("centers", torch.linspace(0.8, REACH, radial), persistent=False)
        self.width = (REACH - 0.8) / (radial - 1)
        self.embed = nn.Linear(elements, dim)
        rates = [drop_path * layer / max(1, depth - 1) for layer in range(depth)]
        self.layers = nn.ModuleList(_Layer(dim, radial + 1, rate) for rate in rates)
        self.atoms = nn.Linear(dim, dim)
        self.molecule = nn.Linear(2 * dim, dim)

    def forward(self, molecules: Tensor) -> Tensor:
        """(B, N, elements + 3), one-hot element and place of each atom, zeros for padding, to (B, dim, 1, 1)."""
        kinds, places = molecules[..., : self.elements], molecules[..., self.elements :]
        real = kinds.sum(dim=-1, keepdim=True)
        pairs = self._pairs(places, real)
        atoms = self.embed(kinds)
        for layer in self.layers:
            atoms = layer(atoms, pairs)
        total = (F.silu(self.atoms(atoms)) * real).sum(dim=1)
        mean = total / real.sum(dim=1).clamp(min=1)
        pooled = torch.cat([total / TYPICAL_ATOMS, mean], dim=-1)
        return F.silu(self.molecule(pooled))[:, :, None, None]

    def _pairs(self, places: Tensor, real: Tensor) -> Tensor:
        """(B, N, N * (radial + 1)): the radial basis of every distance; 0 for an atom and itself or padding."""
        squared = (places.unsqueeze(2) - places.unsqueeze(1)).square().sum(dim=-1)
        # The square root has no gradient at 0, but nothing asks for the places' gradient.
        distance = squared.sqrt().unsqueeze(-1)
        gaussians = (-((distance - self.centers) / self.width).square()).exp()
        both = real * real.transpose(1, 2)
        both = both - torch.diag_embed(torch.diagonal(both, dim1=1, dim2=2))
        basis = torch.cat([gaussians, distance / REACH], dim=-1) * both.unsqueeze(-1)
        return basis.flatten(2)


class _Layer(nn.Module):
    """Messages from all atoms to all atoms, and what each makes of them."""

    def __init__(self, dim: int, basis: int, drop: float) -> None:
        super().__init__()
        self.basis = basis
        self.drop = drop
        self.norm = nn.LayerNorm(dim)
        self.values = nn.Linear(dim, basis * dim, bias=False)
        self.inner = nn.Linear(2 * dim, dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, atoms: Tensor, pairs: Tensor) -> Tensor:
        """(B, N, dim) and (B, N, N * basis) to (B, N, dim)."""
        heard = self.norm(atoms)
        values = self.values(heard).unflatten(-1, (self.basis, -1)).flatten(1, 2)
        messages = pairs @ values
        update = self.outer(F.silu(self.inner(torch.cat([heard, messages], dim=-1))))
        if self.drop > 0 and self.training:
            kept = torch.empty(len(atoms), 1, 1, device=atoms.device).bernoulli_(1 - self.drop)
            update = update * (kept / (1 - self.drop)).to(update.dtype)
        return atoms + update


@dataclass(frozen=True)
class MessagePassingSpec:
    """What is known of a message-passing network without building it; a :class:`trainables.models.base.Backbone`.

    Attributes:
        name: as a config writes it.
        dim: width of an atom's and of the molecule's vector.
        depth: number of layers.
        radial: number of Gaussians in the radial basis.
    """

    name: str
    dim: int
    depth: int
    radial: int

    inputs: ClassVar[InputKind] = "molecules"
    repo: ClassVar[str | None] = None

    @property
    def feature_channels(self) -> int:
        """Width of the molecule's vector."""
        return self.dim

    @property
    def about(self) -> str:
        """One line for lists."""
        return f"message passing on molecules, {self.depth} layers of {self.dim}"

    def grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(1, 1): a molecule has one vector. ``shape`` is (atoms, numbers of an atom).

        Raises:
            ConfigError: atoms have no numbers beside their place.
        """
        if shape[0] < 1 or shape[1] <= COORDINATES:
            raise ConfigError(f"model.backbone: {self.name} wants at least one atom with an element and a place")
        return 1, 1

    def parameter_count(self, shape: tuple[int, int]) -> int:
        """Parameters of the trunk for molecules of ``shape``."""
        dim, basis, elements = self.dim, self.radial + 1, shape[1] - COORDINATES
        layer = 2 * dim + basis * dim**2 + (2 * dim**2 + dim) + (dim**2 + dim)
        return (elements * dim + dim) + self.depth * layer + (dim**2 + dim) + (2 * dim**2 + dim)

    def operations(self, shape: tuple[int, int]) -> float:
        """Multiplications of one forward of one molecule: weights by atoms, and the messages."""
        messages = self.depth * shape[0] ** 2 * (self.radial + 1) * self.dim
        return float(self.parameter_count(shape) * shape[0] + messages)

    def build(self, shape: tuple[int, int], drop_path: float) -> MessagePassing:
        """A trunk, randomly initialised from torch's default generator."""
        self.grid(shape)
        return MessagePassing(shape[1] - COORDINATES, self.dim, self.depth, self.radial, drop_path)

    def features(self, trunk: nn.Module, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        """Molecules (B, N, F) to (B, dim, 1, 1)."""
        vectors: Tensor = trunk(inputs)
        return vectors

    def stages(self, trunk: nn.Module) -> list[nn.Module]:
        """The embedding of atoms and every layer."""
        assert isinstance(trunk, MessagePassing)
        return [trunk.embed, *trunk.layers]

    def upsample(self, shape: tuple[int, int]) -> nn.Module:
        """Nothing: a molecule's property is one number."""
        return nn.Identity()
