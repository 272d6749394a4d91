"""The metrics of a job's last attempt, for Prometheus: a file for node_exporter's textfile collector, or a push.

Every metric has the labels ``catalog`` and ``program`` (the job: Prometheus itself uses the label ``job``). All are
gauges, because a batch has no rate: an attempt replaces the numbers of the attempt before. The metrics in :data:`KEPT`
are about the catalog: a series that the new attempt does not know (a failed attempt has no coverage) keeps its number,
unless the attempt knows all series of the metric (:func:`complete`) or the dictionary does not enable its attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.coverage_groups import COVERAGE_KEY
from catalog_enrichment.errors import CatalogEnrichmentError
from catalog_enrichment.records import Source

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from catalog_enrichment.config.schema import Config

PREFIX = "catalog_enrichment_"

PUSH_SECONDS = 10
"""How long a push waits for the Pushgateway."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: metrics and lineage are made of it."""

    job: str
    exit_code: int
    summary: Mapping[str, Any]
    """The job's JSON line."""
    started_at: float
    """Seconds since 1970."""
    finished_at: float
    run: Mapping[str, Any] = field(default_factory=dict)
    """The run's row in the table `runs`: kind, counts, attributes, error, ... Empty if there is no row."""


@dataclass(frozen=True, slots=True)
class Metric:
    help: str
    labels: tuple[str, ...] = ()
    """Besides ``catalog`` and ``program``."""


METRICS = {
    "last_finished_timestamp_seconds": Metric("When the last attempt ended, seconds since 1970."),
    "last_success_timestamp_seconds": Metric("When the last attempt with exit code 0 ended, seconds since 1970."),
    "last_exit_code": Metric("0 ok, 1 bug, 2 bad config or data contract, 3 a gate refused, 4 surroundings failed."),
    "last_duration_seconds": Metric("Seconds that the last attempt took, from its start to its summary."),
    "stage_seconds": Metric("Seconds per stage of the last attempt.", ("stage",)),
    "products": Metric("Products of the last attempt by what became of them.", ("outcome",)),
    "quarantined": Metric("Rows or products that the last attempt put into quarantine.", ("reason",)),
    "unusable_images": Metric("Products of the last attempt without a usable picture.", ("reason",)),
    "values": Metric("Products by decision, and values retracted, of the last attempt.", ("attribute", "decision")),
    "waiting_values": Metric("Values that wait under the provisional cap.", ("attribute",)),
    "coverage_ratio": Metric("Share of the applicable products with a value that readers see.", ("attribute",)),
    "certificate_expiry_timestamp_seconds": Metric(
        "When a certificate of the model version expires, seconds since 1970.", ("attribute", "modality", "path")
    ),
    "audit_alarm": Metric("1 where the audit's verdicts raise an alarm, else 0.", ("attribute",)),
    "audit_wrong_ratio": Metric("Share of the uniformly drawn values that reviewers found wrong.", ("attribute",)),
}
"""Name without the prefix -> what it means. Dashboard and alert rules are checked against it."""

KEPT = frozenset(
    {
        *("last_success_timestamp_seconds", "coverage_ratio", "waiting_values", "certificate_expiry_timestamp_seconds"),
        *("audit_alarm", "audit_wrong_ratio"),
    }
)
"""Metrics about the state of the catalog, not about the attempt."""

Sample = tuple[str, tuple[str, ...], float]
"""Name without the prefix, values of the labels of :data:`METRICS`, number."""


def write(config: Config, outcome: Outcome) -> None:
    """Replace the job's file in `metrics.folder`, atomically. Raises OSError if it cannot be written."""
    if not config.metrics.folder:
        return
    from prometheus_client import write_to_textfile

    folder = config.path(config.metrics.folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{PREFIX}{re.sub(r'[^A-Za-z0-9_.-]', '_', _catalog(config))}_{outcome.job}.prom"
    write_to_textfile(str(file), _registry(config, outcome, _samples_of(file)))
    file.chmod(0o644)  # node_exporter is another user


def push(config: Config, outcome: Outcome) -> None:
    """Push to `metrics.push_url`, in a group of the catalog and the job.

    The group keeps its metrics of other names: after a failed attempt also the numbers of the attempt before. Raises
    OSError if the gateway cannot be reached or refuses.
    """
    if not config.metrics.push_url:
        return
    from prometheus_client import pushadd_to_gateway

    pushadd_to_gateway(
        config.metrics.push_url,
        job="catalog_enrichment",
        registry=_registry(config, outcome, []),
        grouping_key={"catalog": _catalog(config), "program": outcome.job},
        timeout=PUSH_SECONDS,
    )


def samples(outcome: Outcome, enabled: Sequence[str] | None = None) -> Iterator[Sample]:
    """Yield the numbers of an attempt, which depend on the job and on how it ended.

    ``enabled``: the attributes of the dictionary; None: not known. What the attempt counts for all of them is 0 for
    the attributes that it does not name.
    """
    summary, seconds = outcome.summary, outcome.finished_at - outcome.started_at
    yield "last_finished_timestamp_seconds", (), outcome.finished_at
    if outcome.exit_code == 0:
        yield "last_success_timestamp_seconds", (), outcome.finished_at
    yield "last_exit_code", (), outcome.exit_code
    yield "last_duration_seconds", (), seconds
    for stage, number in _numbers(summary.get("seconds")):
        yield "stage_seconds", (stage,), number
    for name in ("products", "predicted", "skipped", "new", "changed", "unchanged"):
        if _is_number(summary.get(name)):
            yield "products", ("all" if name == "products" else name,), summary[name]
    if isinstance(summary.get("quarantined"), Mapping):
        yield "products", ("quarantined",), sum(number for _, number in _numbers(summary["quarantined"]))
    for name in ("quarantined", "unusable_images"):
        for reason, number in _numbers(summary.get(name)):
            yield name, (reason,), number
    yield from _waiting(summary, enabled or ())
    for attribute, numbers in _attributes(summary).items():
        yield from _attribute_samples(attribute, numbers)
    if "audit_alarm" in complete(outcome):
        yield from (("audit_alarm", (name,), 0) for name in enabled or () if name not in summary["attributes"])
    yield from _coverage(outcome)
    yield from _expiries(outcome.run, enabled)


def complete(outcome: Outcome) -> frozenset[str]:
    """Return the metrics of which the attempt knows every series: other series end."""
    summary, of_run = outcome.summary, outcome.run.get("attributes") or {}
    audited = outcome.job == "audit_ingest" and isinstance(summary.get("attributes"), Mapping)
    known = {
        "waiting_values": isinstance(summary.get("waiting"), Mapping),
        "audit_alarm": audited,
        "audit_wrong_ratio": audited,
        "coverage_ratio": COVERAGE_KEY in of_run,
        "certificate_expiry_timestamp_seconds": "certificates" in of_run,
    }
    return frozenset(name for name, is_known in known.items() if is_known)


def _waiting(summary: Mapping[str, Any], enabled: Sequence[str]) -> Iterator[Sample]:
    """Yield also the zeros of a job that counts what waits: its summary names only attributes with such values."""
    if isinstance(summary.get("waiting"), Mapping):
        numbers = dict.fromkeys(sorted({*enabled, *_attributes(summary)}), 0.0) | dict(_numbers(summary["waiting"]))
        yield from (("waiting_values", (name,), number) for name, number in numbers.items())


def _coverage(outcome: Outcome) -> Iterator[Sample]:
    """Yield the coverage of every enabled attribute, from the run's row; else of the attributes of the summary."""
    if "coverage_ratio" in complete(outcome):
        for name, counts in outcome.run["attributes"][COVERAGE_KEY]["counts"].items():
            covered = sum(counts.get(source.value, 0) for source in Source)
            applicable = counts.get("applicable", 0)
            yield "coverage_ratio", (name,), round(covered / applicable, 4) if applicable else 0.0
        return
    for name, numbers in _attributes(outcome.summary).items():
        if _is_number(numbers.get("coverage_after")):
            yield "coverage_ratio", (name,), numbers["coverage_after"]


def _attribute_samples(attribute: str, numbers: Mapping[str, Any]) -> Iterator[Sample]:
    for decision in ("written", "suggested", "abstained", "retracted"):
        if _is_number(numbers.get(decision)):
            yield "values", (attribute, decision), numbers[decision]
    if isinstance(numbers.get("alarm"), bool):
        yield "audit_alarm", (attribute,), int(numbers["alarm"])
        if numbers.get("verdicts"):
            yield "audit_wrong_ratio", (attribute,), numbers["wrong"] / numbers["verdicts"]


def _expiries(run: Mapping[str, Any], enabled: Sequence[str] | None) -> Iterator[Sample]:
    for row in (run.get("attributes") or {}).get("certificates") or ():
        is_enabled = enabled is None or row["attribute"] in enabled
        if is_enabled and row.get("threshold") is not None:  # else nothing is written that could end
            labels = (row["attribute"], row["modality"], row["compute_type"])
            expires_at = datetime.fromisoformat(row["expires_at"])
            yield "certificate_expiry_timestamp_seconds", labels, expires_at.timestamp()


def _registry(config: Config, outcome: Outcome, before: list[Sample]) -> CollectorRegistry:
    """Return the attempt's samples, and the samples of ``before`` that it keeps."""
    from prometheus_client import CollectorRegistry, Gauge

    enabled = _enabled(config)
    registry, gauges = CollectorRegistry(), {}
    for name, labels, number in [
        *_kept(outcome, before, enabled),
        *samples(outcome, enabled),
    ]:  # the later counts
        metric = METRICS[name]
        if name not in gauges:
            names = ("catalog", "program", *metric.labels)
            gauges[name] = Gauge(f"{PREFIX}{name}", metric.help, names, registry=registry)
        gauges[name].labels(_catalog(config), outcome.job, *labels).set(number)
    return registry


def _kept(outcome: Outcome, before: list[Sample], enabled: Sequence[str] | None) -> list[Sample]:
    """Return the samples of ``before`` that neither the attempt nor the dictionary (``enabled``) ends."""
    names = KEPT - complete(outcome)
    return [
        (name, labels, number)
        for name, labels, number in before
        if name in names and (enabled is None or "attribute" not in METRICS[name].labels or labels[0] in enabled)
    ]


def _enabled(config: Config) -> tuple[str, ...] | None:
    """Return the attributes of the dictionary; None if it cannot be read, which the job itself has said."""
    from catalog_enrichment.context import load_dictionary

    try:
        return tuple(load_dictionary(config).enabled)
    except (CatalogEnrichmentError, OSError):
        return None


def _samples_of(file: Path) -> list[Sample]:
    """Return the samples of an earlier attempt's file; none if no file can be read."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(file.read_text()))
    except (OSError, ValueError):
        return []
    return [
        (name, tuple(sample.labels.get(label, "") for label in METRICS[name].labels), sample.value)
        for family in families
        for sample in family.samples
        if (name := sample.name.removeprefix(PREFIX)) in METRICS
    ]


def _catalog(config: Config) -> str:
    return config.metrics.catalog or config.mlflow.model_name


def _attributes(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the numbers per attribute of a summary; some jobs only list attributes, or have none."""
    content = summary.get("attributes")
    found = content.items() if isinstance(content, Mapping) else ()
    return {str(name): numbers for name, numbers in found if isinstance(numbers, Mapping)}


def _numbers(content: Any) -> list[tuple[str, float]]:
    """Return the entries of a mapping that are numbers."""
    return [(str(k), v) for k, v in content.items() if _is_number(v)] if isinstance(content, Mapping) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
