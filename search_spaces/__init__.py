"""What may vary: axes over trial-config fields, composed into spaces; those of the optimizer, the data, the model and
every method by name."""

from search_spaces.axes import Axis, Condition, axes_from, grid
from search_spaces.domains import Choice, Domain, Float, Int
from search_spaces.fields import apply
from search_spaces.for_optuna import decode, encode, from_params, suggest, to_optuna, to_optuna_space, to_params
from search_spaces.for_ray import to_ray
from search_spaces.grids import to_grid
from search_spaces.named import about, method_space, space, space_names
from search_spaces.points import default_point, fits, point_of
from search_spaces.space import Point, Space

__all__ = [
    "Axis",
    "Choice",
    "Condition",
    "Domain",
    "Float",
    "Int",
    "Point",
    "Space",
    "about",
    "apply",
    "axes_from",
    "decode",
    "default_point",
    "encode",
    "fits",
    "from_params",
    "grid",
    "method_space",
    "point_of",
    "space",
    "space_names",
    "suggest",
    "to_grid",
    "to_optuna",
    "to_optuna_space",
    "to_params",
    "to_ray",
]
