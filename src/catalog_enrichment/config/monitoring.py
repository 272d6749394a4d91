"""What a job says about itself: log lines, metrics for Prometheus, lineage events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class LogsConfig:
    """The lines on stderr. The last line of stdout is always the JSON summary."""

    format: Literal["auto", "text", "json"] = "auto"
    """text: time, level, run id and message; json: an object per line. auto: text, in a terminal without the run id."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lines below it are left out. Libraries' lines are left out below WARNING."""
    progress_seconds: int = 30
    """A stage that takes longer says how far it is, this often; 0: never. In a terminal there is a bar instead."""

    def __post_init__(self) -> None:
        if not 0 <= self.progress_seconds <= 86_400:
            raise ValueError(f"logs.progress_seconds must lie in [0, 86400], not {self.progress_seconds!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsConfig:
    """The numbers of a job's last attempt. What cannot be written is a warning; the exit code stays."""

    folder: str = ""
    """Folder of node_exporter's textfile collector; every job writes a file of its own into it. Relative paths start at
    `root`. Empty: no files."""
    push_url: str = ""
    """`http://HOST:PORT` of a Prometheus Pushgateway; empty: nothing is pushed."""
    push_seconds: int = 10
    """How long to wait for the Pushgateway."""
    catalog: str = ""
    """Label `catalog` of every metric and part of the file names; empty: `mlflow.model_name`."""

    def __post_init__(self) -> None:
        if self.push_url and not re.match(r"https?://[^/]", self.push_url):
            raise ValueError(f"metrics.push_url must be http://HOST:PORT or https://HOST:PORT, not {self.push_url!r}")
        if not 1 <= self.push_seconds <= 3600:
            raise ValueError(f"metrics.push_seconds must lie in [1, 3600], not {self.push_seconds!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageConfig:
    """OpenLineage events: what a run read and wrote. What cannot be sent is a warning; the exit code stays."""

    file: str = ""
    """File that gets one JSON line per run. Relative paths start at `root`. Empty: no file."""
    url: str = ""
    """OpenLineage endpoint that events are posted to, for example `http://marquez:5000/api/v1/lineage`; empty: none."""
    namespace: str = "catalog-enrichment"
    """Namespace of the jobs in the events."""
    seconds: int = 10
    """How long to wait for the endpoint."""

    def __post_init__(self) -> None:
        if self.url and not re.match(r"https?://[^/]", self.url):
            raise ValueError(f"lineage.url must be an http or https URL, not {self.url!r}")
        if not 1 <= self.seconds <= 3600:
            raise ValueError(f"lineage.seconds must lie in [1, 3600], not {self.seconds!r}")
