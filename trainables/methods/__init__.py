"""The methods, by the name a trial config gives them. A new method is one file and one line here."""

from trainables.methods.aggregate import aggregate
from trainables.methods.aligned_mtl import AlignedMTL
from trainables.methods.base import Counters, Losses, Method, MethodConfig, StepLog, Update
from trainables.methods.cagrad import CAGrad
from trainables.methods.dtp import DTP
from trainables.methods.dwa import DWA
from trainables.methods.famo import FAMO
from trainables.methods.gd import GD
from trainables.methods.graddrop import GradDrop
from trainables.methods.imtl import IMTL, IMTLG
from trainables.methods.imtl_l import IMTLL
from trainables.methods.mgda import MGDA
from trainables.methods.nash_mtl import NashMTL
from trainables.methods.pcgrad import PCGrad
from trainables.methods.selective import Selective
from trainables.methods.single_task import SingleTask
from trainables.methods.torchjd import (
    AGGREGATORS,
    PREFIX,
    SCALARIZER_PREFIX,
    SCALARIZERS,
    TorchJDAggregator,
    TorchJDScalarizer,
)
from trainables.methods.uw import UW
from trainables.registry import Registry, component_of

METHODS: Registry[type[Method]] = Registry("method", "mtl_study.methods", component_of(Method))
METHODS.register("aligned_mtl", AlignedMTL)
METHODS.register("cagrad", CAGrad)
METHODS.register("dtp", DTP)
METHODS.register("dwa", DWA)
METHODS.register("famo", FAMO)
METHODS.register("gd", GD)
METHODS.register("graddrop", GradDrop)
METHODS.register("imtl", IMTL)
METHODS.register("imtl_g", IMTLG)
METHODS.register("imtl_l", IMTLL)
METHODS.register("mgda", MGDA)
METHODS.register("nash_mtl", NashMTL)
METHODS.register("pcgrad", PCGrad)
METHODS.register("selective", Selective)
METHODS.register("single_task", SingleTask)
METHODS.register("uw", UW)
for _name in AGGREGATORS:
    METHODS.register(f"{PREFIX}{_name}", TorchJDAggregator)
for _name in SCALARIZERS:
    METHODS.register(f"{SCALARIZER_PREFIX}{_name}", TorchJDScalarizer)

__all__ = ["METHODS", "Counters", "Losses", "Method", "MethodConfig", "StepLog", "Update", "aggregate"]
