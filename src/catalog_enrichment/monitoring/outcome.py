"""How a job ended: what metrics and lineage are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    job: str
    exit_code: int
    summary: Mapping[str, Any]
    """The job's JSON line."""
    started_at: float
    """Seconds since 1970."""
    finished_at: float
    run: Mapping[str, Any] = field(default_factory=dict)
    """Of the run's row in the table `runs`: kind, counts, attributes, error, ... Empty where there is none."""
