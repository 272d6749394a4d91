"""The model for users of MLflow: a models-from-code file that wraps the engine and the certificates.

Log it with ``mlflow.pyfunc.log_model(python_model=THIS FILE, artifacts={"model": FOLDER})``. In: the columns of
:data:`COLUMNS`, of which only title is required. Out: a column per attribute with the values that an enrichment run
would look at, best first, each with what such a run would decide for a product that has no value yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inference import engine
from catalog_enrichment.inference.forward import ScoredRow
from catalog_enrichment.models import artifact, ensemble
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.records import TRANSIENT, Decision, Modality

COLUMNS = ("title", "description", "image", "category", "language")
"""``image``: encoded bytes, an http(s) URI, or for none null or no bytes. ``category`` (a path) and ``language``: as in
the catalog; a certificate holds for those that it was issued for."""

_CHUNK = 64


class AttributeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["model"])
        self._predictor = ensemble.load(folder)
        contents = artifact.read_certificates(folder) if (folder / artifact.CERTIFICATES).exists() else []
        issued = [Certificate.from_dict(content) for content in contents]
        path = self._predictor.compute_type
        self._certificates = {(one.attribute, one.modality): one for one in issued if one.compute_type == path}
        self._limits = _limits(list(self._certificates.values()))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """One row per product, in order, and a column per attribute of the model.

        A cell is a list of at least one dict: ``value``, ``score`` (calibrated probability), ``decision`` (publish,
        suggest, abstain), ``reason`` and ``threshold`` (from which score on the certificate allows the value). Of an
        attribute with one value per product it is the top value; of one with several they are those that can be
        written, best first. A product that cannot be scored has one dict without a value, with the reason.
        """
        products = model_input.reindex(columns=list(COLUMNS))
        rows = [self._row(scored, product) for scored, product in self._scored(products)]
        return pd.DataFrame(rows, columns=list(self._predictor.heads), index=model_input.index)

    def _scored(self, products: pd.DataFrame) -> list[tuple[ScoredRow, dict[str, Any]]]:
        """Each product's scores, with the product as a dict that has None for every null of pandas."""
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
        """Attribute -> the dicts of its cell."""
        candidates: defaultdict[str, list[Candidate]] = defaultdict(list)
        for one in scored.candidates:
            candidates[one.attribute].append(Candidate(value=one.value, score=one.score, rank=one.rank))
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
            return [_cell(one.value, one.score, Decision.ABSTAIN.value, "no_certificate", None) for one in candidates]
        inputs = DecisionInputs(
            certificate=certificate,
            modality=modality,
            picture_outage=modality is Modality.TEXT_ONLY and scored.image_reason in TRANSIENT,
            category=product["category"],
            language=product["language"],
            now=datetime.now(UTC),
            # these files computed the scores, within these limits: there is no config here that could ask for others
            scored_by=of_any.scored_by,
            standard=of_any.standard,
        )
        return [
            _cell(one.value, one.score, one.decision.value, one.reason.value, one.threshold)
            for one in decide(candidates, inputs)
        ]


def _limits(certificates: Sequence[Certificate]) -> ImagesConfig:
    """The limits on pictures that the certificates were issued for. Else the defaults: public web servers, and no local
    files, since whoever asks a served model names the picture."""
    if not certificates:
        return ImagesConfig()
    one = certificates[0]
    return ImagesConfig(max_bytes=one.max_image_bytes, max_pixels=one.max_image_pixels)


def _pictures(image: bytes | str | None) -> list[dict[str, Any]]:
    if not image:
        return []
    return [{"uri": image} if isinstance(image, str) else {"bytes": image}]


def _cell(
    value: str | None, score: float | None, decision: str, reason: str | None, threshold: float | None
) -> dict[str, Any]:
    return {"value": value, "score": score, "decision": decision, "reason": reason, "threshold": threshold}


def _present(column: pd.Series[Any]) -> list[Any]:
    """The column with None for every null value of pandas."""
    return [None if pd.isna(value) else value for value in column]


mlflow.models.set_model(AttributeModel())
