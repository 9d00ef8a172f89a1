"""The methods, by the name a trial config gives them. A new method is one file and one line here."""

from trainables.methods.base import Counters, Losses, Method, MethodConfig, StepLog, Update
from trainables.methods.dtp import DTP
from trainables.methods.dwa import DWA
from trainables.methods.famo import FAMO
from trainables.methods.gd import GD
from trainables.methods.imtl_l import IMTLL
from trainables.methods.selective import Selective
from trainables.methods.single_task import SingleTask
from trainables.methods.uw import UW
from trainables.registry import Registry

METHODS: Registry[type[Method]] = Registry("method")
METHODS.register("dtp", DTP)
METHODS.register("dwa", DWA)
METHODS.register("famo", FAMO)
METHODS.register("gd", GD)
METHODS.register("imtl_l", IMTLL)
METHODS.register("selective", Selective)
METHODS.register("single_task", SingleTask)
METHODS.register("uw", UW)

__all__ = ["METHODS", "Counters", "Losses", "Method", "MethodConfig", "StepLog", "Update"]
