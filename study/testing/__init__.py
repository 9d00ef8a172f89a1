"""What every component owes the platform, as test classes to inherit. The project's own tests are made of these, and so
are those of any package that adds to it::

    from study.testing import MethodContract

    class TestMine(MethodContract):
        @staticmethod
        def variants(tasks):
            return {"default": {"name": "mine"}}

Needs pytest, which this package does not install by itself.
"""

try:
    import pytest
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
    raise ImportError("study.testing is made of pytest's tests; install it: pip install 'pytest>=8.0'") from error

_MODULES = ("data_sets", "gradients", "methods", "metrics", "parts", "weights")
# A failing assertion then shows its values, as in a test file. Has to be said before the modules are imported.
pytest.register_assert_rewrite(*(f"study.testing.{name}" for name in _MODULES))

from study.testing.data_sets import DataSetContract, OnDiskContract  # noqa: E402
from study.testing.gradients import GradientContract, SplitBench  # noqa: E402
from study.testing.methods import Bench, MethodContract, same_bits  # noqa: E402
from study.testing.metrics import IgnoringMetricContract, MetricContract  # noqa: E402
from study.testing.parts import BackboneContract, ClustererContract, TaskSetContract  # noqa: E402
from study.testing.weights import LossWeightedContract, Scripted  # noqa: E402

__all__ = [
    "BackboneContract",
    "Bench",
    "ClustererContract",
    "DataSetContract",
    "GradientContract",
    "IgnoringMetricContract",
    "LossWeightedContract",
    "MethodContract",
    "MetricContract",
    "OnDiskContract",
    "Scripted",
    "SplitBench",
    "TaskSetContract",
    "same_bits",
]
