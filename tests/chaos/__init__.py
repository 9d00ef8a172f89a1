"""Faults injected into real sweeps, at points drawn from a seed; what is recorded afterwards is held against a sweep
that nothing disturbed. ``python -m tests.chaos --help``."""
