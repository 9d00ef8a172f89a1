"""What may vary: axes over trial-config fields."""

from search_spaces.axes import Axis, apply, axes_from, grid

__all__ = ["Axis", "apply", "axes_from", "grid"]
