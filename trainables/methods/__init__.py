"""The methods, by the name a trial config gives them. A new method is one file and one line here."""

from trainables.methods.base import Counters, Losses, Method, MethodConfig, StepLog, Update
from trainables.methods.gd import GD
from trainables.methods.selective import Selective
from trainables.methods.single_task import SingleTask
from trainables.registry import Registry

METHODS: Registry[type[Method]] = Registry("method")
METHODS.register("gd", GD)
METHODS.register("selective", Selective)
METHODS.register("single_task", SingleTask)

__all__ = ["METHODS", "Counters", "Losses", "Method", "MethodConfig", "StepLog", "Update"]
