"""Taskonomy as people have it on disk, its eleven dense labels normalised as the papers do."""

from trainables.data.taskonomy.config import TaskonomyConfig
from trainables.data.taskonomy.dataset import Taskonomy

__all__ = ["Taskonomy", "TaskonomyConfig"]
