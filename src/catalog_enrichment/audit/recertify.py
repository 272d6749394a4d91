"""recertify_model: new certificates for a paused attribute from uniform audit labels, without training.

    paused attribute -> uniform verdicts drawn since -> test thresholds at or above the old one
    -> a model version with the same weights and new certificates -> champion -> the attribute is switched on

The version's scores are the old one's, so the next run decides again without a forward pass. The old certificates are
paused, so that going back to the old version does not write under them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import reissue
from catalog_enrichment.audit.fresh_labels import DrawnRows
from catalog_enrichment.audit.ingest import WHO as INGEST
from catalog_enrichment.catalog import label_uses, runs, switches
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.precision import recertify
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.precision.certify import LabelUse, spent_delta
from catalog_enrichment.precision.grid import smallest_sample
from catalog_enrichment.precision.recertify import AuditedFold
from catalog_enrichment.records import DRY_RUN, Cardinality, RunKind, RunStatus, make_run_id, stable_hash

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config, PrecisionConfig
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.registry.model_registry import Registry, ResolvedModel

WHO = "recertify_model"

_SEVERAL = "The attribute can have several values, and a product counts with all of them: audit_sample --whole-products"


@dataclass(frozen=True, slots=True)
class Request:
    attributes: tuple[str, ...] = ()
    """Paused ones to certify again; none: all that an audit paused."""
    dry_run: bool = False
    """Only count the labels."""


def recertify_model(
    config: Config, catalog: Catalog, registry: Registry, dictionary: Dictionary, request: Request, say: Say = to_stderr
) -> dict[str, Any]:
    """Certify paused attributes again; returns the summary. Under the catalog's write lock.

    Raises ConfigError if nothing is paused, and GateRefused, with what is missing, if no threshold passes for any.
    """
    stages = Stages(say)
    record = RunRecord(kind=RunKind.RECERTIFY, stages=stages, config=config.without_secrets())
    record.window = {"attributes": list(request.attributes)}
    with runs.recorded(catalog, record, unless=request.dry_run):
        pauses = _pauses(catalog, request.attributes)
        model = registry.resolve()
        record.model_name, record.model_version = model.name, model.version
        lineage = registry.lineage(model.version)
        pending = [one for one in pauses if not done_before(model.certificates, lineage, one)]
        record.run_id = make_run_id(
            RunKind.RECERTIFY, model.name, model.version, [(*one.key, str(one.at)) for one in pauses]
        )
        labels = _labels(catalog, model, dictionary, pending)
        if request.dry_run:
            return _counted(catalog, record, model, labels, config.precision) | {"seconds": stages.seconds}
        with stages("certify"):
            replaced = [_replaced(catalog, one, config.precision) for one in labels]
        passed = sorted({new.attribute for _, new in replaced if new.threshold is not None})
        summary = _summary(record, model, replaced, passed)
        if not passed and len(pending) == len(pauses):
            raise GateRefused(_why_nothing(pending, replaced), summary)
        if passed:
            with stages("register"):
                # an attribute that failed keeps its certificates, and stays paused by its switch
                issued = {old.certificate_id: new for old, new in replaced if new.attribute in passed}
                version = reissue.register(registry, model, issued, reissue.RECERTIFIED)
                details = {"recertified": passed, "reason": "uniform audit labels drawn after the alarm"}
                registry.promote(version.version, expected_current=model.version, details=details)
                summary["model_version"] = version.version
        done = [one for one in pauses if one.attribute in passed or one not in pending]
        gone = [old for old, _ in replaced if old.attribute in passed]
        gone += _predecessors(registry, model, lineage, {one.attribute for one in done} - set(passed))
        written = switches.write(catalog, _moved(catalog, done, gone, record.run_id))
        summary["switched_on"] = sorted(one.attribute for one in written if one.state is State.ON)
        runs.write(catalog, record)
    return summary | {"status": RunStatus.SUCCEEDED, "seconds": stages.seconds}


def _pauses(catalog: Catalog, attributes: Sequence[str]) -> list[Switch]:
    """The switches of the paused attributes; without ``attributes`` of those that an audit paused.

    Raises ConfigError if there are none, or one of ``attributes`` is not paused.
    """
    paused = switches.read(catalog).of(Scope.ATTRIBUTE, State.PAUSED)
    known = {one.attribute for one in paused}
    if not known or (missing := sorted(set(attributes) - known)):
        raise ConfigError(
            f"{'no attribute is paused' if not known else f'{missing} is not paused, but {sorted(known)}'}: "
            "recertify_model is for attributes that an audit paused"
        )
    found = [one for one in paused if one.attribute in attributes or (not attributes and one.who == INGEST)]
    if not found:
        by = ", ".join(f"{one.attribute} ({one.who}: {one.why})" for one in paused)
        raise ConfigError(
            f"no attribute is paused by an audit, but by people: {by}. Name one with --attribute to certify it again "
            "and switch it on, or switch it on with set_switch"
        )
    return found


def done_before(certificates: Sequence[Certificate], lineage: Mapping[str, Any], pause: Switch) -> bool:
    """Whether the champion is the version that certified the paused attribute again, and the run that made it was
    killed before it could switch the attribute on.

    ``lineage``: of the champion. A version that was trained since is another one: its certificates come from merchants'
    labels, and say nothing against the alarm.
    """
    again = bool(lineage.get(reissue.RECERTIFIED)) and pause.attribute in lineage.get("attributes", ())
    return again and any(
        one.attribute == pause.attribute and one.threshold is not None and pause.at is not None
        and one.status is CertificateStatus.CONFIRMED and one.issued_at > pause.at
        for one in certificates
    )  # fmt: skip


def _predecessors(
    registry: Registry, model: ResolvedModel, lineage: Mapping[str, Any], attributes: Collection[str]
) -> list[Certificate]:
    """The certificates of ``attributes`` that a recertification, which was killed, has replaced in the champion."""
    if not attributes:
        return []
    kept = {one.certificate_id for one in model.certificates}
    before = registry.resolve(version=lineage[reissue.RECERTIFIED]).certificates
    return [
        one
        for one in before
        if one.attribute in attributes and one.threshold is not None and one.certificate_id not in kept
    ]


@dataclass(frozen=True, slots=True)
class _Labels:
    """What there is to test for one old certificate."""

    old: Certificate
    fold: AuditedFold
    judged: int
    """Products of the fold of which somebody judged a value."""


def _labels(catalog: Catalog, model: ResolvedModel, dictionary: Dictionary, pauses: Sequence[Switch]) -> list[_Labels]:
    """Of the old certificates that wrote something of the paused attributes."""
    drawn, found = DrawnRows.read(catalog), []
    for pause in pauses:
        for old in model.certificates:
            if old.attribute == pause.attribute and old.threshold is not None and pause.at is not None:
                fold = drawn.fold(old, pause.at, dictionary[old.attribute].cardinality)
                found.append(_Labels(old, fold, drawn.judged(fold, old)))
    return found


def _replaced(catalog: Catalog, labels: _Labels, rule: PrecisionConfig) -> tuple[Certificate, Certificate]:
    """The old certificate with the one that replaces it."""
    old, fold = labels.old, labels.fold
    new = recertify.recertified(old, fold, rule, _use(catalog, old, fold, rule), datetime.now(UTC))
    if fold.cardinality is not Cardinality.ONE and not len(fold.scores):
        new = replace(new, why_abstains=f"{new.why_abstains}. {_SEVERAL}")
    return old, new


def _counted(
    catalog: Catalog, record: RunRecord, model: ResolvedModel, labels: Sequence[_Labels], rule: PrecisionConfig
) -> dict[str, Any]:
    """The summary of a dry run: how many labels there are and how many are needed. Nothing is tested: who saw what the
    labels say, and drew more until they pass, would use them many times (PRECISION, point 6)."""
    rows = []
    for one in labels:
        use = label_uses.next_number(catalog, *_test(catalog, one.old, one.fold, rule))
        rows.append(
            {
                "old": one.old.certificate_id,
                "attribute": one.old.attribute,
                "modality": one.old.modality.value,
                "drawn": len(one.fold.scores),
                "judged": one.judged,
                "needed": smallest_sample(rule.target, spent_delta(rule.delta, use)),
            }
        )
    return _summary(record, model, (), ()) | {"status": DRY_RUN, "certificates": rows}


def _test(catalog: Catalog, old: Certificate, fold: AuditedFold, rule: PrecisionConfig) -> tuple[label_uses.Fold, str]:
    """The fold and the candidate of a test, for the table `label_uses`."""
    of = label_uses.Fold(old.attribute, fold.product_ids, label_uses.earlier_uses(catalog).certification_round)
    grid = recertify.grid(old, fold, rule, 1).tolist()
    return of, stable_hash("recertified", old.certificate_id, rule.target, rule.delta, grid)


def _use(catalog: Catalog, old: Certificate, fold: AuditedFold, rule: PrecisionConfig) -> LabelUse:
    """The use of these labels, recorded before they are tested; without enough of them there is none."""
    of, candidate = _test(catalog, old, fold, rule)
    number = label_uses.next_number(catalog, of, candidate)
    if recertify.why_untestable(old, fold, rule, number):
        return LabelUse(number=number, certification_round=of.certification_round)
    return label_uses.use_labels(catalog, of, candidate)


def _why_nothing(pending: Sequence[Switch], replaced: Sequence[tuple[Certificate, Certificate]]) -> str:
    reasons = [f"{new.attribute} ({new.modality}): {new.why_abstains}" for _, new in replaced]
    tested = {new.attribute for _, new in replaced}
    reasons += [
        f"{one.attribute}: the champion has no certificate that writes it; a trained version is needed"
        for one in pending
        if one.attribute not in tested
    ]
    return "nothing was certified; the attributes stay paused:\n  - " + "\n  - ".join(reasons)


def _moved(catalog: Catalog, pauses: Sequence[Switch], old: Sequence[Certificate], run_id: str) -> list[Switch]:
    """The attributes on, their old certificates paused. What a person moved since ``pauses`` were read stays so."""
    why = "certified again from audited values"
    now = {one.key: one for one in switches.read(catalog).entries}
    on = [
        Switch(scope=Scope.ATTRIBUTE, attribute=one.attribute, state=State.ON, who=WHO, why=why, run_id=run_id)
        for one in pauses
        if now.get(one.key) == one
    ]
    paused = [
        Switch(scope=Scope.CERTIFICATE, target=one.certificate_id, state=State.PAUSED, who=WHO, why=why, run_id=run_id)
        for one in old
    ]
    return [*paused, *on]


def _summary(
    record: RunRecord, model: ResolvedModel, replaced: Sequence[tuple[Certificate, Certificate]], passed: Sequence[str]
) -> dict[str, Any]:
    names = ("attribute", "modality", "threshold", "accepted", "wrong", "lower_bound", "use_number", "why_abstains")
    return {
        "run_id": record.run_id,
        "model": model.name,
        "recertified_from": model.version,
        "model_version": model.version,
        "attributes": list(passed),
        "certificates": [
            {"old": old.certificate_id, "new": new.certificate_id, "old_threshold": old.threshold}
            | {name: getattr(new, name) for name in names}
            for old, new in replaced
        ],
    }
