"""QM9: eleven properties of 130,831 small organic molecules, read from the package ``qm9pack``."""

from trainables.data.qm9.dataset import Qm9, Qm9Config, Qm9Split

__all__ = ["Qm9", "Qm9Config", "Qm9Split"]
