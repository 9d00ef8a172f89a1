"""Shared by the methods that see the gradient of every task: rows, their Gramian, exact solvers, the step."""

from trainables.methods.gramian.closed_form import ScaleMode, aligned_mtl, imtl_g, pcgrad
from trainables.methods.gramian.method import GradientConfig, GradientMethod, GramianConfig, GramianMethod, Scale
from trainables.methods.gramian.nash import nash
from trainables.methods.gramian.problem import Array, Core, Problem, SolverInfo, epsilon_of, solve
from trainables.methods.gramian.rows import Rows, TaskGradients
from trainables.methods.gramian.simplex import cagrad, mgda

__all__ = [
    "Array",
    "Core",
    "GradientConfig",
    "GradientMethod",
    "GramianConfig",
    "GramianMethod",
    "Problem",
    "Rows",
    "Scale",
    "ScaleMode",
    "SolverInfo",
    "TaskGradients",
    "aligned_mtl",
    "cagrad",
    "epsilon_of",
    "imtl_g",
    "mgda",
    "nash",
    "pcgrad",
    "solve",
]
