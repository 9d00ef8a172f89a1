"""The eleven properties that multi-task papers predict on QM9, and the units in which they report them.

Targets 0, 1, 2, 3, 5, 6, 12, 13, 14, 15 and 11 of PyTorch Geometric's QM9, in that order, as in LibMTL, Nash-MTL and
FAMO: energies in meV, the four energies of a molecule without those of its atoms. Values and units of the data are
those of Ramakrishnan et al., Scientific Data 1, 140022 (2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ELEMENTS = ("H", "C", "N", "O", "F")
"""The elements, in the order of an atom's one-hot numbers."""

MEV = 27_211.386_245_988
"""Millielectronvolts in a hartree (CODATA 2018)."""


@dataclass(frozen=True)
class Property:
    """One property of a molecule.

    Attributes:
        name: of the label and the task.
        short: as tables head it.
        column: of the files.
        unit: in which it is reported.
        factor: from the column's unit to that.
        atoms: in the column's unit, what each element's free atom has of it; subtracted for every atom.
    """

    name: str
    short: str
    column: str
    unit: str
    factor: float = 1.0
    atoms: Mapping[str, float] = field(default_factory=dict)


def _of_atoms(*hartree: float) -> dict[str, float]:
    return dict(zip(ELEMENTS, hartree, strict=True))


# Energies of free atoms: atomref.txt of the published data set (doi 10.6084/m9.figshare.1057643).
_U0 = _of_atoms(-0.500273, -37.846772, -54.583861, -75.064579, -99.718730)
_U = _of_atoms(-0.498857, -37.845355, -54.582445, -75.063163, -99.717314)
_H = _of_atoms(-0.497912, -37.844411, -54.581501, -75.062219, -99.716370)
_G = _of_atoms(-0.510927, -37.861317, -54.598897, -75.079532, -99.733544)

PROPERTIES: tuple[Property, ...] = (
    Property("mu", "mu", "Dipole_debye", "D"),
    Property("alpha", "alpha", "Polarizability_bohr3", "bohr^3"),
    Property("homo", "HOMO", "HOMO_au", "meV", MEV),
    Property("lumo", "LUMO", "LUMO_au", "meV", MEV),
    Property("r2", "R2", "R2_bohr2", "bohr^2"),
    Property("zpve", "ZPVE", "ZPVE_au", "meV", MEV),
    Property("u0", "U0", "InternalEnergy_0K_au", "meV", MEV, _U0),
    Property("u", "U", "InternalEnergy_298K_au", "meV", MEV, _U),
    Property("h", "H", "Enthalphy_298K_au", "meV", MEV, _H),
    Property("g", "G", "GibbsFreeEnergy_298K_au", "meV", MEV, _G),
    Property("cv", "Cv", "Heatcapacity_Cv_cal_mol_K", "cal/(mol K)"),
)
"""In the order of the published tables."""
