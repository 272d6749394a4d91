"""The model for users of MLflow: a models-from-code file that wraps the engine and the certificates.

Log it with ``mlflow.pyfunc.log_model(python_model=THIS FILE, artifacts={"model": FOLDER})``. The input has the
:data:`COLUMNS`, of which only title is required. The output has a column per attribute with the values that an
enrichment run would look at, best first, each with the run's decision for a product that has no value yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inference import engine
from catalog_enrichment.inference.forward import ScoredRow
from catalog_enrichment.models import artifact, version_files
from catalog_enrichment.models.predictor import load_predictor
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.reasons import TRANSIENT
from catalog_enrichment.records import Decision, Modality

COLUMNS = ("title", "description", "image", "category", "language")
"""``image`` is encoded bytes or an http(s) URI; null or empty without a picture. ``category`` (a path) and ``language``
are as in the catalog; a certificate holds for the categories and languages that it was issued for."""

_CHUNK = 64


class AttributeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["model"])
        if not (folder / artifact.MODEL).is_file():
            raise ModelContractError(
                f"{folder} was not trained here: it certifies the proposals of another model, or of answers, which "
                "proposer.json names. Serve that model; enrich_catalog writes what is certified"
            )
        self._predictor = load_predictor(folder)
        contents = version_files.read_certificates(folder) if (folder / version_files.CERTIFICATES).exists() else []
        self._certificates = {
            (certificate.attribute, certificate.modality): certificate
            for certificate in map(Certificate.from_dict, contents)
            if certificate.compute_type == self._predictor.compute_type
        }
        self._limits = _limits(list(self._certificates.values()))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Return a row per product, in order, with a column per attribute of the model.

        A cell is a list of dicts: ``value``, ``score`` (calibrated probability), ``decision`` (publish, suggest,
        abstain), ``reason`` and ``threshold`` (the lowest score for which the certificate allows the value). An
        attribute with one value per product has a dict for the top value; an attribute with several has the values that
        can be written, best first. A product that cannot be scored has a dict without a value, with the reason.
        """
        products = model_input.reindex(columns=list(COLUMNS))
        rows = [self._row(scored, product) for scored, product in self._scored(products)]
        return pd.DataFrame(rows, columns=list(self._predictor.heads), index=model_input.index)

    def _scored(self, products: pd.DataFrame) -> list[tuple[ScoredRow, dict[str, Any]]]:
        """Return each product's scores, with the product as a dict that has None for every null of pandas."""
        columns = {name: _present(products[name]) for name in COLUMNS}
        batches = (
            engine.UndecodedBatch(
                columns["title"][start : start + _CHUNK],
                columns["description"][start : start + _CHUNK],
                [_pictures(image) for image in columns["image"][start : start + _CHUNK]],
            )
            for start in range(0, len(products), _CHUNK)
        )
        scored = [row for batch in engine.score_batches(self._predictor, batches, self._limits) for row in batch]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return list(zip(scored, rows, strict=True))

    def _row(self, scored: ScoredRow, product: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Return attribute -> the dicts of its cell."""
        candidates: defaultdict[str, list[Candidate]] = defaultdict(list)
        for top in scored.candidates:
            candidates[top.attribute].append(Candidate(value=top.value, score=top.score, rank=top.rank))
        return {
            name: self._decided(name, candidates[name], scored, product)
            if candidates[name]
            else [_cell(None, None, Decision.ABSTAIN.value, scored.error, None)]
            for name in self._predictor.heads
        }

    def _decided(
        self, name: str, candidates: Sequence[Candidate], scored: ScoredRow, product: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        modality = Modality(scored.modality)
        certificate = self._certificates.get((name, modality))
        of_any = certificate or next(iter(self._certificates.values()), None)
        if of_any is None:  # a model that was never certified
            return [_cell(top.value, top.score, Decision.ABSTAIN.value, "no_certificate", None) for top in candidates]
        inputs = DecisionInputs(
            certificate=certificate,
            modality=modality,
            picture_outage=modality is Modality.TEXT_ONLY and scored.image_reason in TRANSIENT,
            category=product["category"],
            language=product["language"],
            now=datetime.now(UTC),
            # these files computed the scores, within these limits: no config here could ask for others
            scored_by=of_any.scored_by,
            standard=of_any.standard,
        )
        return [
            _cell(decided.value, decided.score, decided.decision.value, decided.reason.value, decided.threshold)
            for decided in decide(candidates, inputs)
        ]


def _limits(certificates: Sequence[Certificate]) -> ImagesConfig:
    """Return the limits on pictures that the certificates were issued for, else the defaults.

    Pictures come from public web servers, not from local files, since whoever asks a served model names the picture.
    """
    if not certificates:
        return ImagesConfig()
    issued = certificates[0]
    return ImagesConfig(
        max_bytes=issued.max_image_bytes,
        max_pixels=issued.max_image_pixels,
        keep_scaled=issued.scaled_side is not None,
        scaled_side=issued.scaled_side or ImagesConfig().scaled_side,
    )


def _pictures(image: bytes | str | None) -> list[dict[str, Any]]:
    if not image:
        return []
    return [{"uri": image} if isinstance(image, str) else {"bytes": image}]


def _cell(
    value: str | None, score: float | None, decision: str, reason: str | None, threshold: float | None
) -> dict[str, Any]:
    return {"value": value, "score": score, "decision": decision, "reason": reason, "threshold": threshold}


def _present(column: pd.Series[Any]) -> list[Any]:
    """Return the column with None for every null value of pandas."""
    return [None if pd.isna(value) else value for value in column]


mlflow.models.set_model(AttributeModel())
