"""What a parent run in the records stands for: a study's plan, or a search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ParentRun:
    """A parent run as the tracker writes it.

    Attributes:
        kind: of run, as :mod:`study.schema` names it.
        id: of the study or search; the name of its experiment.
        title: one line.
        about: what is asked.
        profile: the scale it runs at.
        file: name of the artifact that ``document`` is written to.
        document: what an analysis needs to read the trials; equal documents share a parent run.
    """

    kind: str
    id: str
    title: str
    about: str
    profile: str
    file: str
    document: Mapping[str, Any]

    def digest(self) -> str:
        """SHA-256 (hex) of the document."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()
