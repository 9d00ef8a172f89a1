"""A study: spec -> cells -> runs. ``from study import Study`` has all of it for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.api import Study

__all__ = ["Study"]


def __getattr__(name: str) -> Any:
    """``Study`` when it is asked for: ``import study.schema`` stays light."""
    if name != "Study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from study.api import Study

    return Study
