"""The metrics of a job's last attempt, for Prometheus: a file for node_exporter's textfile collector, or a push.

Every metric has the labels ``catalog`` and ``program`` (the job: Prometheus itself uses the label ``job``). All are
gauges, because a batch has no rate: an attempt replaces the numbers of the one before. What an attempt does not know
(a failed one has no coverage, one with nothing to do no new certificates) remains as the attempt before it said, for
the metrics in :data:`KEPT`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    one before. Raises OSError where it cannot be
    reached or refuses.
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


def samples(outcome: Outcome) -> Iterator[Sample]:
    """The numbers of an attempt. Which there are depends on the job and on how it ended."""
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
    for attribute, number in _numbers(summary.get("waiting")):
        yield "waiting_values", (attribute,), number
    attributes = summary.get("attributes")
    for attribute, numbers in attributes.items() if isinstance(attributes, Mapping) else ():
        yield from _of_attribute(attribute, numbers)
    yield from _expiries(outcome.run)


def _of_attribute(attribute: str, numbers: Any) -> Iterator[Sample]:
    if not isinstance(numbers, Mapping):
        return
    for decision in ("written", "suggested", "abstained", "retracted"):
        if _is_number(numbers.get(decision)):
            yield "values", (attribute, decision), numbers[decision]
    if _is_number(numbers.get("coverage_after")):
        yield "coverage_ratio", (attribute,), numbers["coverage_after"]
    if isinstance(numbers.get("alarm"), bool):
        yield "audit_alarm", (attribute,), int(numbers["alarm"])
        if numbers.get("verdicts"):
            yield "audit_wrong_ratio", (attribute,), numbers["wrong"] / numbers["verdicts"]


def _expiries(run: Mapping[str, Any]) -> Iterator[Sample]:
    for one in (run.get("attributes") or {}).get("certificates") or ():
        if one.get("threshold") is not None:  # an abstention writes nothing that could end
            labels = (one["attribute"], one["modality"], one["numeric_path"])
            yield (
                "certificate_expiry_timestamp_seconds", labels, datetime.fromisoformat(one["expires_at"]).timestamp()
            )  # fmt: skip


def _registry(config: Config, outcome: Outcome, before: list[Sample]) -> CollectorRegistry:
    """The attempt's samples, and of ``before`` those of :data:`KEPT` that it has no sample of the name for."""
    from prometheus_client import CollectorRegistry, Gauge

    now = list(samples(outcome))
    known = {name for name, _, _ in now}
    registry, gauges = CollectorRegistry(), {}
    for name, labels, number in [*(old for old in before if old[0] in KEPT - known), *now]:
        metric = METRICS[name]
        if name not in gauges:
            names = ("catalog", "program", *metric.labels)
            gauges[name] = Gauge(f"{PREFIX}{name}", metric.help, names, registry=registry)
        gauges[name].labels(_catalog(config), outcome.job, *labels).set(number)
    return registry


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
