"""TorchJD's aggregators and scalarizers as methods, where that optional library is installed (extra ``torchjd``)."""

from trainables.methods.torchjd.aggregators import AggregatorConfig, TorchJDAggregator
from trainables.methods.torchjd.library import AGGREGATORS, PREFIX, SCALARIZER_PREFIX, SCALARIZERS
from trainables.methods.torchjd.scalarizers import ScalarizerConfig, TorchJDScalarizer

__all__ = [
    "AGGREGATORS",
    "PREFIX",
    "SCALARIZERS",
    "SCALARIZER_PREFIX",
    "AggregatorConfig",
    "ScalarizerConfig",
    "TorchJDAggregator",
    "TorchJDScalarizer",
]
