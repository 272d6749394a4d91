"""A config with a registry on sqlite, and a certificate of a tiny model version."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.schema import Config, MlflowConfig
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.records import Modality

from .. import sample_certificate

MODEL = "tiny"
CERTIFIED = {"color/certified_recall": 0.4, "color/certified_precision": 0.97, "color/certified_accepted": 100.0}


def certificate(modality: Modality, weights_hash: str, threshold: float | None) -> Certificate:
    now = datetime.now(UTC)
    return sample_certificate.certificate(
        modality=modality,
        values=("Blue", "Red"),
        threshold=threshold,
        why_abstains="" if threshold is not None else "text only is not certified yet",
        label_set_hash="labels-1",
        weights_hash=weights_hash,
        issued_at=now,
        expires_at=now + timedelta(days=90),
    )


def config_in(folder: Path, **changes: Any) -> Config:
    mlflow = MlflowConfig(tracking_uri="sqlite:///mlflow.db", artifact_path="artifacts", model_name=MODEL)
    dictionary = folder / "words.json"
    row = {"name": "color", "cardinality": "one", "values": ["Blue", "Red"]}
    dictionary.write_text(json.dumps({"attributes": [row]}))
    catalog = CatalogConfig(path="catalog", dictionary=str(dictionary))
    return Config(catalog=catalog, mlflow=replace(mlflow, **changes), root=str(folder))
