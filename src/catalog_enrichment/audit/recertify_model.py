"""recertify_model: new certificates for a paused attribute from uniform audit labels, without training.

    paused attribute -> uniform verdicts drawn since -> test thresholds at or above the old one
    -> a model version with the same weights and new certificates -> champion -> the attribute is switched on

The version's scores are those of the old version, so the next run decides again without a forward pass. The old
certificates are paused, so that going back to the old version does not write under them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.audit import estimates, reissue
from catalog_enrichment.audit.draws import UNIFORM
from catalog_enrichment.audit.ingest_verdicts import WHO as INGEST
from catalog_enrichment.audit.review_records import Answer, Purpose
from catalog_enrichment.catalog import label_uses, review_tables, runs, switches
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.precision import verdict_certificates
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.precision.cluster import group_numbers
from catalog_enrichment.precision.thresholds import smallest_sample, spent_delta
from catalog_enrichment.precision.verdict_certificates import AuditedFold
from catalog_enrichment.records import DRY_RUN, Cardinality, LabelUse, RunKind, RunStatus, make_run_id, stable_hash
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.registry.trained_model import RECERTIFIED

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import Config, PrecisionConfig
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.registry.model_registry import Registry, ResolvedModel

Row = Mapping[str, Any]

WHO = "recertify_model"

_SEVERAL = "The attribute can have several values, and a product counts with all of them: audit_sample --whole-products"


@dataclass(frozen=True, slots=True)
class RecertifyRequest:
    attributes: tuple[str, ...] = ()
    """Paused attributes to certify again; empty: all that an audit paused."""
    dry_run: bool = False
    """A dry run: labels are counted, nothing is certified."""


def recertify_model(
    config: Config,
    catalog: Catalog,
    registry: Registry,
    dictionary: Dictionary,
    request: RecertifyRequest,
    say: Say = to_stderr,
) -> dict[str, Any]:
    """Certify paused attributes again. Return the summary. Under the catalog's write lock.

    Raises ConfigError if nothing is paused, and GateRefused, with what is missing, if no threshold passes for any.
    """
    stages, rule = Stages(say), config.precision
    record = RunRecord(kind=RunKind.RECERTIFY, stages=stages, config=config.without_secrets())
    record.window = {"attributes": list(request.attributes)}
    with runs.recorded(catalog, record, unless=request.dry_run):
        pauses = paused_attributes(catalog, request.attributes)
        model = registry.resolve()
        record.model_name, record.model_version = model.name, model.version
        lineage = registry.lineage(model.version)
        pending = [pause for pause in pauses if not done_before(model.certificates, lineage, pause)]
        keys = [(*pause.key, str(pause.at)) for pause in pauses]
        record.run_id = make_run_id(RunKind.RECERTIFY, model.name, model.version, keys)
        labels = _labels(catalog, model, dictionary, pending)
        if request.dry_run:
            counted = [_count(catalog, label, rule) for label in labels]
            summary = _summary(record, model, (), ()) | {"status": DRY_RUN, "certificates": counted}
            return summary | {"seconds": stages.seconds}
        with stages("certify"):
            replaced = [_replaced(catalog, label, rule) for label in labels]
        passed = sorted({new.attribute for _, new in replaced if new.threshold is not None})
        summary = _summary(record, model, replaced, passed)
        if not passed and len(pending) == len(pauses):
            raise GateRefused(_why_nothing(pending, replaced), summary)
        if passed:
            with stages("register"):
                # an attribute that failed keeps its certificates, and stays paused by its switch
                issued = {old.certificate_id: new for old, new in replaced if new.attribute in passed}
                version = reissue.register(registry, model, issued, RECERTIFIED)
                details = {"recertified": passed, "reason": "uniform audit labels drawn after the alarm"}
                Promotion(registry).promote(version.version, expected_current=model.version, details=details)
                summary["model_version"] = version.version
        done = [pause for pause in pauses if pause.attribute in passed or pause not in pending]
        gone = [old for old, _ in replaced if old.attribute in passed]
        gone += _predecessors(registry, model, lineage, {pause.attribute for pause in done} - set(passed))
        written = switches.write(catalog, switches_after(catalog, done, gone, record.run_id))
        summary["switched_on"] = sorted(switch.attribute for switch in written if switch.state is State.ON)
        runs.write(catalog, record)
    return summary | {"status": RunStatus.SUCCEEDED, "seconds": stages.seconds}


# --- switches and versions ------------------------------------------------------------------------------------------


def paused_attributes(catalog: Catalog, attributes: Sequence[str]) -> list[Switch]:
    """Return the switches of the paused ``attributes``; if none is named, of those that an audit paused.

    Raises ConfigError if there are none, or a named attribute is not paused.
    """
    paused = switches.read(catalog).of(Scope.ATTRIBUTE, State.PAUSED)
    known = {pause.attribute for pause in paused}
    if not known or (missing := sorted(set(attributes) - known)):
        raise ConfigError(
            f"{'no attribute is paused' if not known else f'{missing} is not paused, but {sorted(known)}'}: "
            "recertify_model is for attributes that an audit paused"
        )
    found = [pause for pause in paused if pause.attribute in attributes or (not attributes and pause.who == INGEST)]
    if not found:
        by = ", ".join(f"{pause.attribute} ({pause.who}: {pause.why})" for pause in paused)
        raise ConfigError(
            f"no attribute is paused by an audit, but by people: {by}. Name it with --attribute to certify it again "
            "and switch it on, or switch it on with set_switch"
        )
    return found


def done_before(certificates: Sequence[Certificate], lineage: Mapping[str, Any], pause: Switch) -> bool:
    """Return whether the champion is the version that certified the paused attribute again, by a run that was killed
    before it could switch the attribute on.

    ``lineage``: of the champion. A version that was trained since does not count: its certificates come from merchants'
    labels, and say nothing against the alarm.
    """
    again = bool(lineage.get(RECERTIFIED)) and pause.attribute in lineage.get("attributes", ())
    return again and any(
        known.attribute == pause.attribute and known.threshold is not None and pause.at is not None
        and known.status is CertificateStatus.CONFIRMED and known.issued_at > pause.at
        for known in certificates
    )  # fmt: skip


def _predecessors(
    registry: Registry, model: ResolvedModel, lineage: Mapping[str, Any], attributes: Collection[str]
) -> list[Certificate]:
    """Return the certificates of ``attributes`` that a recertification that was killed has replaced in the champion."""
    if not attributes:
        return []
    kept = {certificate.certificate_id for certificate in model.certificates}
    return [
        old
        for old in registry.resolve(version=lineage[RECERTIFIED]).certificates
        if old.attribute in attributes and old.threshold is not None and old.certificate_id not in kept
    ]


def switches_after(catalog: Catalog, pauses: Sequence[Switch], old: Sequence[Certificate], run_id: str) -> list[Switch]:
    """Return the switches to move: the attributes on, their ``old`` certificates paused.

    A switch that a person moved since ``pauses`` were read stays as it is.
    """
    usual: dict[str, Any] = {"who": WHO, "why": "certified again from audited values", "run_id": run_id}
    now = {switch.key: switch for switch in switches.read(catalog).entries}
    on = [
        Switch(scope=Scope.ATTRIBUTE, attribute=pause.attribute, state=State.ON, **usual)
        for pause in pauses
        if now.get(pause.key) == pause
    ]
    paused = [
        Switch(scope=Scope.CERTIFICATE, target=certificate.certificate_id, state=State.PAUSED, **usual)
        for certificate in old
    ]
    return [*paused, *on]


# --- labels: verdicts on values that nobody had judged before, drawn uniformly of everything after the pause --------


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Everything that was drawn, with the verdicts."""

    rows: Sequence[Row]
    """Rows of `audits`, in the order of the draws."""
    verdict_of: Mapping[str, Row]
    """Item id -> the verdict that counts."""
    of_one_run: frozenset[str] = frozenset()
    """Ids of the runs of audit_sample that drew only what one run wrote: their rows are no sample of everything."""
    of_whole_products: frozenset[str] = frozenset()
    """Ids of the runs of audit_sample that drew all values of each product."""

    @classmethod
    def read(cls, catalog: Catalog) -> DrawnRows:
        asked = review_tables.sample_windows(catalog)
        return cls(
            review_tables.drawn(catalog),
            review_tables.newest(catalog),
            review_tables.of_one_run(asked),
            frozenset(run_id for run_id, window in asked.items() if window.get("whole_products")),
        )

    def fold(self, old: Certificate, since: datetime, cardinality: Cardinality) -> AuditedFold:
        """Return the labels for the certificate that replaces ``old``, whose attribute was paused at ``since``.

        Products that were judged before the pause, or since then in an earlier sample that does not count, are left
        out, right or wrong: the wrong values are retracted and not drawn again, so the right values would stand for too
        many. A value that was drawn several times counts once.
        """
        of_old = [row for row in self.rows if row["certificate_id"] == old.certificate_id]
        single = cardinality is Cardinality.ONE
        drawn_with = [row for row in of_old if single or row["run_id"] in self.of_whole_products]
        judged_at: dict[str, datetime] = {}
        for row in of_old:
            if row["item_id"] in self.verdict_of and not self._counts(row, since):
                earlier = judged_at.get(row["product_id"], row["drawn_at"])
                judged_at[row["product_id"]] = min(earlier, row["drawn_at"])
        fresh = [
            row
            for row in drawn_with
            if self._counts(row, since) and judged_at.get(row["product_id"], row["drawn_at"]) >= row["drawn_at"]
        ]
        once: dict[tuple[str, str], Row] = {}
        for row in sorted(fresh, key=lambda row: row["item_id"] not in self.verdict_of):  # stable: the judged first
            once.setdefault((row["product_id"], row["value"]), row)
        rows = [row for row in fresh if once[row["product_id"], row["value"]] is row]
        return audited_fold(rows, drawn_with, self.verdict_of, cardinality)

    def _counts(self, row: Row, since: datetime) -> bool:
        """Return whether the row was drawn after the pause and uniformly of everything that readers see."""
        of_written = row["purpose"] == Purpose.AUDIT.value and row["stratum"] == UNIFORM
        return of_written and row["run_id"] not in self.of_one_run and bool(row["drawn_at"] > since)

    def number_judged(self, fold: AuditedFold, old: Certificate) -> int:
        """Return of how many products of the fold somebody has judged a value; not the answers."""
        known = {
            row["product_id"]
            for row in self.rows
            if row["certificate_id"] == old.certificate_id and row["item_id"] in self.verdict_of
        }
        return sum(product in known for product in fold.product_ids)


def audited_fold(
    rows: Sequence[Row], drawn: Sequence[Row], verdict_of: Mapping[str, Row], cardinality: Cardinality
) -> AuditedFold:
    """Return uniformly drawn ``rows`` of `audits` with the verdicts on them and on the other values of their products.

    ``drawn``: these and all other rows of their products in the same samples. A value without a verdict, or that nobody
    can tell, counts as wrong.
    """
    reviewed = estimates.with_verdict(drawn, verdict_of, ())
    right = {item.row["item_id"] for item in reviewed if item.answer is Answer.YES}
    days = sorted(f"{row['drawn_at']:%Y-%m-%d}" for row in rows)
    of_product: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in drawn:
        of_product[row["sample_id"], row["product_id"]].append(row)
    products = [of_product[row["sample_id"], row["product_id"]] for row in rows]
    wrong = [[row["score"] for row in values if row["item_id"] not in right] for values in products]
    contents = [row["content_hash"] or row["product_id"] for row in rows]
    return AuditedFold(
        scores=np.array([max(row["score"] for row in values) for values in products], dtype=np.float64),
        wrong_scores=np.array([max(scores, default=-np.inf) for scores in wrong], dtype=np.float64),
        weights=np.array([1 / len(values) for values in products], dtype=np.float64),
        cardinality=cardinality,
        groups=group_numbers(contents) if rows else np.zeros(0, dtype=np.int64),
        product_ids=tuple(row["product_id"] for row in rows),
        data_window=f"{days[0]}/{days[-1]}" if days else "unknown",
    )


@dataclass(frozen=True, slots=True)
class _Labels:
    """The labels to test for an old certificate."""

    old: Certificate
    fold: AuditedFold
    judged: int
    """Products of the fold of which somebody judged a value."""


def _labels(catalog: Catalog, model: ResolvedModel, dictionary: Dictionary, pauses: Sequence[Switch]) -> list[_Labels]:
    """Return the labels of the certificates that wrote something of the paused attributes."""
    drawn, found = DrawnRows.read(catalog), []
    for pause in pauses:
        for old in model.certificates:
            if old.attribute == pause.attribute and old.threshold is not None and pause.at is not None:
                fold = drawn.fold(old, pause.at, dictionary[old.attribute].cardinality)
                found.append(_Labels(old, fold, drawn.number_judged(fold, old)))
    return found


# --- tests ----------------------------------------------------------------------------------------------------------


def _replaced(catalog: Catalog, labels: _Labels, rule: PrecisionConfig) -> tuple[Certificate, Certificate]:
    """Return the old certificate with its replacement."""
    old, fold = labels.old, labels.fold
    new = verdict_certificates.from_audit(old, fold, rule, _use(catalog, labels, rule), datetime.now(UTC))
    if fold.cardinality is not Cardinality.ONE and not len(fold.scores):
        new = replace(new, why_abstains=f"{new.why_abstains}. {_SEVERAL}")
    return old, new


def _count(catalog: Catalog, labels: _Labels, rule: PrecisionConfig) -> dict[str, Any]:
    """Return how many labels there are and how many are needed, for a dry run.

    Nothing is tested: a person who sees what the labels say, and draws more until they pass, would use them many times
    (PRECISION, point 6).
    """
    use = label_uses.next_number(catalog, *_test(catalog, labels, rule))
    return {
        "old": labels.old.certificate_id,
        "attribute": labels.old.attribute,
        "modality": labels.old.modality.value,
        "drawn": len(labels.fold.scores),
        "judged": labels.judged,
        "needed": smallest_sample(rule.target, spent_delta(rule.delta, use)),
    }


def _test(catalog: Catalog, labels: _Labels, rule: PrecisionConfig) -> tuple[label_uses.Fold, str]:
    """Return the fold and the candidate of a test, for the table `label_uses`."""
    old, fold = labels.old, labels.fold
    of = label_uses.Fold(old.attribute, fold.product_ids, label_uses.earlier_uses(catalog).certification_round)
    grid = verdict_certificates.audited_thresholds(old, fold, rule, 1).tolist()
    return of, stable_hash("recertified", old.certificate_id, rule.target, rule.delta, grid)


def _use(catalog: Catalog, labels: _Labels, rule: PrecisionConfig) -> LabelUse:
    """Return the use of these labels, recorded before they are tested; too few labels are not used."""
    of, candidate = _test(catalog, labels, rule)
    number = label_uses.next_number(catalog, of, candidate)
    if verdict_certificates.why_untestable(labels.fold, rule, number):
        return LabelUse(number=number, certification_round=of.certification_round)
    return label_uses.use_labels(catalog, of, candidate)


def _why_nothing(pending: Sequence[Switch], replaced: Sequence[tuple[Certificate, Certificate]]) -> str:
    reasons = [f"{new.attribute} ({new.modality}): {new.why_abstains}" for _, new in replaced]
    tested = {new.attribute for _, new in replaced}
    reasons += [
        f"{pause.attribute}: the champion has no certificate that writes it; a trained version is needed"
        for pause in pending
        if pause.attribute not in tested
    ]
    return "nothing was certified; the attributes stay paused:\n  - " + "\n  - ".join(reasons)


def _summary(
    record: RunRecord, model: ResolvedModel, replaced: Sequence[tuple[Certificate, Certificate]], passed: Sequence[str]
) -> dict[str, Any]:
    names = ("attribute", "modality", "threshold", "accepted", "wrong", "lower_bound", "use_number", "why_abstains")
    return {
        "run_id": record.run_id,
        "model": model.name,
        RECERTIFIED: model.version,
        "model_version": model.version,
        "attributes": list(passed),
        "certificates": [
            {"old": old.certificate_id, "new": new.certificate_id, "old_threshold": old.threshold}
            | {name: getattr(new, name) for name in names}
            for old, new in replaced
        ],
    }
