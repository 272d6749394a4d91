"""The metrics of a job's last attempt, for Prometheus: a file for node_exporter's textfile collector, or a push.

Every metric has the labels ``catalog`` and ``program`` (the job: Prometheus itself uses the label ``job``). All are
gauges, because a batch has no rate: an attempt replaces the numbers of the one before. Of the metrics in :data:`KEPT`,
which are about the catalog, each series that an attempt does not know (a failed one has no coverage, one with nothing
to do no certificates) remains as the attempt before it said, unless the attempt knows all series of the metric
(:func:`complete`) or the dictionary does not have its attribute, or has it disabled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.coverage_groups import COVERAGE_KEY
from catalog_enrichment.errors import CatalogEnrichmentError
from catalog_enrichment.records import Source

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.monitoring.outcome import Outcome

PREFIX = "catalog_enrichment_"


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

_AUDIT = "audit_ingest"
"""The job whose summary has the audit's alarms."""

Sample = tuple[str, tuple[str, ...], float]
"""Name without the prefix, values of the labels of :data:`METRICS`, number."""


def write(config: Config, outcome: Outcome) -> None:
    """Replace the job's file in `metrics.folder`, atomically. Raises OSError where it cannot be written."""
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

    The group's metrics of other names stay: those of :data:`KEPT`, and after a failed attempt also the numbers of the
    one before. Raises OSError where it cannot be reached or refuses.
    """
    if not config.metrics.push_url:
        return
    from prometheus_client import pushadd_to_gateway

    pushadd_to_gateway(
        config.metrics.push_url,
        job="catalog_enrichment",
        registry=_registry(config, outcome, []),
        grouping_key={"catalog": _catalog(config), "program": outcome.job},
        timeout=config.metrics.push_seconds,
    )


def samples(outcome: Outcome, enabled: Sequence[str] | None = None) -> Iterator[Sample]:
    """The numbers of an attempt. Which there are depends on the job and on how it ended.

    ``enabled``: the attributes of the dictionary; None: not known. Of what the attempt counts for all of them, those
    that it does not name are 0.
    """
    summary, seconds = outcome.summary, outcome.finished_at - outcome.started_at
    yield "last_finished_timestamp_seconds", (), outcome.finished_at
    if outcome.exit_code == 0:
        yield "last_success_timestamp_seconds", (), outcome.finished_at
    yield "last_exit_code", (), outcome.exit_code
    yield "last_duration_seconds", (), seconds
    for stage, number in _numbers(summary.get("seconds")):
        yield "stage_seconds", (stage,), number
    quarantined = summary.get("quarantined")
    for name in ("products", "predicted", "skipped", "new", "changed", "unchanged"):
        if _is_number(summary.get(name)):
            yield "products", ("all" if name == "products" else name,), summary[name]
    if isinstance(quarantined, Mapping):
        yield "products", ("quarantined",), sum(number for _, number in _numbers(quarantined))
    for name, metric in (("quarantined", "quarantined"), ("unusable_images", "unusable_images")):
        for reason, number in _numbers(summary.get(name)):
            yield metric, (reason,), number
    yield from _waiting(summary, enabled or ())
    attributes = summary.get("attributes")
    for attribute, numbers in attributes.items() if isinstance(attributes, Mapping) else ():
        yield from _of_attribute(attribute, numbers)
    if "audit_alarm" in complete(outcome):
        yield from (("audit_alarm", (name,), 0) for name in enabled or () if name not in summary["attributes"])
    yield from _coverage(outcome)
    yield from _expiries(outcome.run, enabled)


def complete(outcome: Outcome) -> frozenset[str]:
    """The metrics of which the attempt knows every series, so that others are of the past."""
    summary, of_run = outcome.summary, outcome.run.get("attributes") or {}
    audited = outcome.job == _AUDIT and isinstance(summary.get("attributes"), Mapping)
    known = {
        "waiting_values": isinstance(summary.get("waiting"), Mapping),
        "audit_alarm": audited,
        "audit_wrong_ratio": audited,
        "coverage_ratio": COVERAGE_KEY in of_run,
        "certificate_expiry_timestamp_seconds": "certificates" in of_run,
    }
    return frozenset(name for name, is_known in known.items() if is_known)


def _waiting(summary: Mapping[str, Any], enabled: Sequence[str]) -> Iterator[Sample]:
    """Of a job that counts what waits, also the zeros: its summary names only attributes with such values."""
    waiting, attributes = summary.get("waiting"), summary.get("attributes")
    if isinstance(waiting, Mapping):
        names = {*enabled, *(attributes if isinstance(attributes, Mapping) else ())}
        numbers = dict.fromkeys(sorted(names), 0.0) | dict(_numbers(waiting))
        yield from (("waiting_values", (name,), number) for name, number in numbers.items())


def _coverage(outcome: Outcome) -> Iterator[Sample]:
    """Of every enabled attribute, from the run's row; else of those that the summary has."""
    if "coverage_ratio" in complete(outcome):
        for name, counts in outcome.run["attributes"][COVERAGE_KEY]["counts"].items():
            covered = sum(counts.get(source.value, 0) for source in Source)
            applicable = counts.get("applicable", 0)
            yield "coverage_ratio", (name,), round(covered / applicable, 4) if applicable else 0.0
        return
    attributes = outcome.summary.get("attributes")
    for name, numbers in attributes.items() if isinstance(attributes, Mapping) else ():
        if isinstance(numbers, Mapping) and _is_number(numbers.get("coverage_after")):
            yield "coverage_ratio", (name,), numbers["coverage_after"]


def _of_attribute(attribute: str, numbers: Any) -> Iterator[Sample]:
    if not isinstance(numbers, Mapping):
        return
    for decision in ("written", "suggested", "abstained", "retracted"):
        if _is_number(numbers.get(decision)):
            yield "values", (attribute, decision), numbers[decision]
    if isinstance(numbers.get("alarm"), bool):
        yield "audit_alarm", (attribute,), int(numbers["alarm"])
        if numbers.get("verdicts"):
            yield "audit_wrong_ratio", (attribute,), numbers["wrong"] / numbers["verdicts"]


def _expiries(run: Mapping[str, Any], enabled: Sequence[str] | None) -> Iterator[Sample]:
    for one in (run.get("attributes") or {}).get("certificates") or ():
        if enabled is not None and one["attribute"] not in enabled:
            continue  # nothing is written for it, so that nothing ends
        if one.get("threshold") is not None:  # an abstention writes nothing that could end
            labels = (one["attribute"], one["modality"], one["compute_type"])
            yield (
                "certificate_expiry_timestamp_seconds", labels, datetime.fromisoformat(one["expires_at"]).timestamp()
            )  # fmt: skip


def _registry(config: Config, outcome: Outcome, before: list[Sample]) -> CollectorRegistry:
    """The attempt's samples, and those of ``before`` that it keeps."""
    from prometheus_client import CollectorRegistry, Gauge

    enabled = _enabled(config)
    registry, gauges = CollectorRegistry(), {}
    for name, labels, number in [*_kept(outcome, before, enabled), *samples(outcome, enabled)]:  # the later one counts
        metric = METRICS[name]
        if name not in gauges:
            names = ("catalog", "program", *metric.labels)
            gauges[name] = Gauge(f"{PREFIX}{name}", metric.help, names, registry=registry)
        gauges[name].labels(_catalog(config), outcome.job, *labels).set(number)
    return registry


def _kept(outcome: Outcome, before: list[Sample], enabled: Sequence[str] | None) -> list[Sample]:
    """The samples of ``before`` that the attempt does not know better, nor the dictionary (``enabled``)."""
    names = KEPT - complete(outcome)
    return [
        (name, labels, number)
        for name, labels, number in before
        if name in names and (enabled is None or "attribute" not in METRICS[name].labels or labels[0] in enabled)
    ]


def _enabled(config: Config) -> tuple[str, ...] | None:
    """The attributes of the dictionary; None where it cannot be read, which the job itself has said."""
    from catalog_enrichment.context import load_dictionary

    try:
        return tuple(load_dictionary(config).enabled)
    except (CatalogEnrichmentError, OSError):
        return None


def _samples_of(file: Path) -> list[Sample]:
    """The samples of an earlier attempt's file; none where there is no file that can be read."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(file.read_text()))
    except (OSError, ValueError):
        return []
    found = [(one.name.removeprefix(PREFIX), one.labels, one.value) for family in families for one in family.samples]
    return [
        (name, tuple(labels.get(label, "") for label in METRICS[name].labels), value)
        for name, labels, value in found
        if name in METRICS
    ]


def _catalog(config: Config) -> str:
    return config.metrics.catalog or config.mlflow.model_name


def _numbers(content: Any) -> list[tuple[str, float]]:
    """The entries of a mapping that are numbers."""
    return [(str(k), v) for k, v in content.items() if _is_number(v)] if isinstance(content, Mapping) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
