"""recertify_model: new certificates for a paused attribute from uniform audit labels, without training.

    paused attribute -> uniform verdicts drawn since -> test thresholds at or above the old one
    -> a model version with the same weights and new certificates -> champion -> the attribute is switched on

The version's scores are the old one's, so the next run decides again without a forward pass. The old certificates are
paused, so that going back to the old version does not write under them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.audit import estimates
from catalog_enrichment.audit.items import Answer
from catalog_enrichment.audit.sampling import UNIFORM
from catalog_enrichment.catalog import label_uses, runs, switches, verdicts
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.precision import recertify
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import LabelUse
from catalog_enrichment.precision.cluster import group_numbers
from catalog_enrichment.precision.recertify import AuditedFold
from catalog_enrichment.records import Cardinality, RunKind, RunStatus, make_run_id, stable_hash
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.stages import Say, Stages, to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config, PrecisionConfig
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.registry.model_registry import ModelVersion, Registry, ResolvedModel

WHO = "recertify_model"

_SEVERAL = "The attribute can have several values, and a product counts with all of them: audit_sample --whole-products"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    attributes: tuple[str, ...] = ()
    """Paused ones to certify again; none: all that are paused."""
    dry_run: bool = False


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
        pending = [one for one in pauses if not _done_before(model, one)]
        record.run_id = make_run_id(
            RunKind.RECERTIFY, model.name, model.version, [(*one.key, str(one.at)) for one in pauses]
        )
        with stages("certify"):
            replaced = _replaced(catalog, model, dictionary, pending, config.precision, request.dry_run)
        issued = {old.certificate_id: new for old, new in replaced}
        passed = sorted({new.attribute for _, new in replaced if new.threshold is not None})
        summary = _summary(record, model, replaced, passed)
        if pending and not passed:
            reasons = "\n  - ".join(f"{new.attribute} ({new.modality}): {new.why_abstains}" for _, new in replaced)
            raise GateRefused(f"nothing was certified; the attributes stay paused:\n  - {reasons}", summary)
        if request.dry_run:
            return summary | {"status": "dry_run", "seconds": stages.seconds}
        if pending:
            with stages("register"):
                version = _register(registry, model, issued, passed)
                details = {"recertified": passed, "reason": "uniform audit labels drawn after the alarm"}
                registry.promote(version.version, expected_current=model.version, details=details)
                summary["model_version"] = version.version
        done = [one for one in pauses if one.attribute in passed or one not in pending]
        switches.write(catalog, _moved(done, [old for old, new in replaced if new.attribute in passed], record.run_id))
        runs.write(catalog, record)
    return summary | {"status": RunStatus.SUCCEEDED, "seconds": stages.seconds}


def _pauses(catalog: Catalog, attributes: Sequence[str]) -> list[Switch]:
    """The switches of the paused attributes. Raises ConfigError if there are none, or one is not paused."""
    paused = switches.read(catalog).of(Scope.ATTRIBUTE, State.PAUSED)
    known = {one.attribute for one in paused}
    if not known or (missing := sorted(set(attributes) - known)):
        raise ConfigError(
            f"{'no attribute is paused' if not known else f'{missing} is not paused, but {sorted(known)}'}: "
            "recertify_model is for attributes that an audit paused"
        )
    return [one for one in paused if not attributes or one.attribute in attributes]


def _done_before(model: ResolvedModel, pause: Switch) -> bool:
    """Whether the champion was certified since the pause: a run was killed before it could switch the attribute on."""
    return any(
        one.attribute == pause.attribute and one.threshold is not None and pause.at is not None
        and one.issued_at > pause.at
        for one in model.certificates
    )  # fmt: skip


def _replaced(
    catalog: Catalog,
    model: ResolvedModel,
    dictionary: Dictionary,
    pauses: Sequence[Switch],
    rule: PrecisionConfig,
    dry_run: bool,
) -> list[tuple[Certificate, Certificate]]:
    """The old certificates that wrote something of the paused attributes, each with the one that replaces it."""
    drawn, said = verdicts.drawn(catalog), verdicts.newest(catalog)
    now, found = datetime.now(UTC), []
    for pause in pauses:
        for old in model.certificates:
            if old.attribute != pause.attribute or old.threshold is None:
                continue
            rows = [
                row
                for row in drawn
                if row["certificate_id"] == old.certificate_id
                and row["stratum"] == UNIFORM
                and pause.at is not None
                and row["drawn_at"] > pause.at
            ]
            single = dictionary[old.attribute].cardinality is Cardinality.ONE
            drawn_with = rows if single else _whole_products(catalog, drawn, old)
            if not single:
                whole = {row["run_id"] for row in drawn_with}
                rows = [row for row in rows if row["run_id"] in whole]
            fold = audited_fold(rows, drawn_with, said, dictionary[old.attribute].cardinality)
            use = _use(catalog, old, fold, rule, dry_run)
            new = recertify.recertified(old, fold, rule, use, now)
            if not single and not rows:
                new = replace(new, why_abstains=f"{new.why_abstains}. {_SEVERAL}")
            found.append((old, new))
    return found


def _whole_products(catalog: Catalog, drawn: Sequence[Row], old: Certificate) -> list[Row]:
    """The rows, of all strata, of samples that were drawn with all values of each product."""
    asked = runs.rows(catalog, ["run_id", "window", "finished_at"])
    whole = {row["run_id"] for row in asked if json.loads(row["window"] or "{}").get("whole_products")}
    return [row for row in drawn if row["run_id"] in whole and row["certificate_id"] == old.certificate_id]


def audited_fold(
    rows: Sequence[Row], drawn: Sequence[Row], said: Mapping[str, Row], cardinality: Cardinality
) -> AuditedFold:
    """Uniformly drawn ``rows`` of `audits` with the verdicts on them, and on the other values of their products.

    ``drawn``: these and all other rows of their products in the same samples. A value without a verdict, or that nobody
    can tell, counts as wrong.
    """
    right = {one.row["item_id"] for one in estimates.judged(drawn, said, ()) if one.answer is Answer.YES}
    days = sorted(f"{row['drawn_at']:%Y-%m-%d}" for row in rows)
    of_product: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in drawn:
        of_product[row["sample_id"], row["product_id"]].append(row)
    products = [of_product[row["sample_id"], row["product_id"]] for row in rows]
    wrong = [[one["score"] for one in values if one["item_id"] not in right] for values in products]
    return AuditedFold(
        scores=np.array([max(one["score"] for one in values) for values in products], dtype=np.float64),
        wrong_scores=np.array([max(scores, default=-np.inf) for scores in wrong], dtype=np.float64),
        weights=np.array([1 / len(values) for values in products], dtype=np.float64),
        cardinality=cardinality,
        groups=group_numbers([row["content_hash"] or row["product_id"] for row in rows])
        if rows
        else np.zeros(0, dtype=np.int64),
        product_ids=tuple(row["product_id"] for row in rows),
        data_window=f"{days[0]}/{days[-1]}" if days else "unknown",
    )


def _use(catalog: Catalog, old: Certificate, fold: AuditedFold, rule: PrecisionConfig, dry_run: bool) -> LabelUse:
    """The use of these labels, recorded before they are tested; without enough of them there is none."""
    epoch = label_uses.earlier_uses(catalog).epoch
    of = label_uses.Fold(old.attribute, fold.product_ids, epoch)
    candidate = stable_hash(
        "recertified", old.certificate_id, rule.target, rule.delta, recertify.grid(old, fold, rule, 1).tolist()
    )
    number = label_uses.next_number(catalog, of, candidate)
    if dry_run or recertify.why_untestable(old, fold, rule, number):
        return LabelUse(number=number, epoch=epoch)
    return label_uses.use_labels(catalog, of, candidate)


def _register(
    registry: Registry, model: ResolvedModel, issued: Mapping[str, Certificate], passed: Sequence[str]
) -> ModelVersion:
    """A version with the same files and the new certificates."""
    from catalog_enrichment.models import artifact

    certificates = [issued.get(one.certificate_id, one) for one in model.certificates]
    with tempfile.TemporaryDirectory(prefix="catalog-enrichment-") as folder:
        target = Path(folder) / "artifact"
        shutil.copytree(model.artifact, target)
        artifact.write_certificates(target, [one.to_dict() for one in certificates])
        # how the new thresholds do on the test fold is not known: what is not recorded is not compared
        held_out = [row for row in registry.held_out(model.version) or [] if row.attribute not in passed]
        labels = stable_hash(sorted(one.label_set_hash for one in issued.values()))
        lineage: dict[str, Any] = {
            "recertified_from": model.version,
            "attributes": list(passed),
            "label_set_hash": labels,
            "labelled": 0,
        }
        return registry.register(
            TrainedModel(
                artifact=target,
                certificates=certificates,
                metrics={},
                params={"recertified_from": model.version},
                tables={},
                curves={},
                history=[],
                warnings=[],
                held_out=held_out,
                lineage=lineage,
                seconds={},
            )
        )


def _moved(pauses: Sequence[Switch], old: Sequence[Certificate], run_id: str) -> list[Switch]:
    """The attributes on, their old certificates paused."""
    why = "certified again from audited values"
    on = [
        Switch(scope=Scope.ATTRIBUTE, attribute=one.attribute, state=State.ON, who=WHO, why=why, run_id=run_id)
        for one in pauses
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
