"""Registers a model version with the files of another version and some new certificates: no training, equal scores."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.models import version_files
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.records import stable_hash
from catalog_enrichment.registry.trained_model import BY_VERDICTS, RECERTIFIED, TrainedModel

if TYPE_CHECKING:
    from catalog_enrichment.registry.model_registry import ModelVersion, Registry, ResolvedModel


def register(registry: Registry, model: ResolvedModel, issued: Mapping[str, Certificate], key: str) -> ModelVersion:
    """Register a version with the files of ``model`` and make it the candidate.

    ``issued``: id of each certificate that is replaced -> the new certificate; ``key``: :data:`RECERTIFIED` or
    :data:`BY_VERDICTS`. What the new thresholds do on the test fold is not known, so no decision of the test fold is
    recorded for them.
    """
    new = list(issued.values())
    certificates = [issued.get(old.certificate_id, old) for old in model.certificates]
    replaced = {(certificate.attribute, certificate.modality) for certificate in new}
    attributes = {certificate.attribute for certificate in new}
    held_out = [row for row in registry.held_out(model.version) if (row.attribute, row.modality) not in replaced]
    lineage: dict[str, Any] = {
        key: model.version,
        "attributes": sorted(attributes),
        "label_set_hash": stable_hash(sorted(certificate.label_set_hash for certificate in new)),
        "labelled": 0,
    }
    with tempfile.TemporaryDirectory(prefix="catalog-enrichment-") as folder:
        target = Path(folder) / "artifact"
        shutil.copytree(model.artifact, target)
        version_files.write_certificates(target, [certificate.to_dict() for certificate in certificates])
        if reference := version_files.read_drift(target):
            version_files.write_drift(target, _without_accepted(reference, new))
        return registry.register(
            TrainedModel(
                artifact=target,
                certificates=certificates,
                metrics={},
                params={key: model.version},
                tables={},
                curves={},
                history=[],
                warnings=[],
                held_out=held_out,
                lineage=lineage,
                seconds={},
            )
        )


def _without_accepted(reference: list[dict[str, Any]], issued: Iterable[Certificate]) -> list[dict[str, Any]]:
    """Return the reference for drift checks without the accepted products of the ``issued`` certificates: how many
    products the new thresholds accept was not counted by stratum, and the old numbers would look like drift."""
    keys = {(new.attribute, new.modality.value, new.compute_type) for new in issued}

    def kept(entry: dict[str, Any]) -> dict[str, Any]:
        if (entry["attribute"], entry["modality"], entry["compute_type"]) not in keys:
            return entry
        strata = [{name: stratum[name] for name in stratum if name != "accepted"} for stratum in entry["strata"]]
        return entry | {"strata": strata}

    return [kept(entry) for entry in reference]


def ancestors(registry: Registry, version: str) -> list[str]:
    """Return ``version`` and the versions whose files it has, the newest first; the last version was trained."""
    found = [version]
    while before := _before(registry.lineage(found[-1])):
        found.append(before)
    return found


def _before(lineage: Mapping[str, Any]) -> str:
    return str(lineage.get(RECERTIFIED) or lineage.get(BY_VERDICTS) or "")
