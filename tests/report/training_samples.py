"""A trained model for the tests of its page and tables, with untrusted titles and values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from catalog_enrichment.records import Modality
from catalog_enrichment.registry.trained_model import TrainedModel

from ..precision.folds import REFUSED_CATEGORY
from .report_samples import NASTY, abstention, certificate, picture

CURVE = {"thresholds": [0.99, 0.9, 0.8, 0.1], "precision": [1.0, 0.98, 0.96, 0.6], "recall": [0.1, 0.3, 0.5, 0.7]}
WEIGHTS = {"edges": [0.0, 0.5, 1.0], "counts": [3, 7], "quantiles": [0.1, 0.2, 0.7, 0.8, 0.9]}
BINS = {"confidence": [0.3, 0.9], "accuracy": [0.25, 0.93], "count": [10, 90], "expected_error": 0.032}


def epoch(number: int, train: float, validation: float, stage: str = "toy", recipe: str = "toy") -> dict[str, Any]:
    losses = {"train_loss": train, "validation_loss": validation, "learning_rate": 1e-4}
    return {"recipe": recipe, "stage": stage, "epoch": float(number), **losses}


def mistake(**changes: Any) -> dict[str, Any]:
    content = {
        "attribute": "color", "product_id": "p1", "title": "A red shirt", "true": ["red"], "predicted": "navy & white",
        "score": 0.91, "modality": "both", "attention": 0.25, "written": True,
    }  # fmt: skip
    return content | changes


def modality(name: str, r_at_p95: float, attribute: str = "color") -> dict[str, Any]:
    return {"attribute": attribute, "modality": name, "r_at_p95_micro": r_at_p95, "f1_macro": 0.5}


def trained(**changes: Any) -> TrainedModel:
    """Return a model: color is certified for products with a picture, but not for shoes; season is not certified."""
    shoes = replace(REFUSED_CATEGORY, category="Shoes", unlabelled_products=210, labelled_missing=640)
    why = "12 labelled products without a usable picture are in the certification fold and at least 59 are needed"
    no_picture = f"{why}: about 313 more such labelled products"
    content: dict[str, Any] = {
        "artifact": Path("model"), "params": {}, "history": [], "held_out": [], "seconds": {"fit": 90.0},
        "warnings": ["color: the picture is hardly used"],
        "certificates": [
            certificate(refused_categories=(shoes,), languages=("en",), accept_rate=0.4, unlabelled_products=1500),
            certificate(modality=Modality.TEXT_ONLY, threshold=None, why_abstains=no_picture),
            abstention(),
        ],
        "metrics": {"color/products": 412.0, "color/accuracy": 0.812, "color/f1_macro": 0.55,
                    "color/f1_macro_low": 0.5, "color/f1_macro_high": 0.6, "color/r_at_p95_micro": 0.4,
                    "color/certified_recall": 0.375, "color/text/f1_macro": 0.1},
        "lineage": {"labelled_by_attribute": {"color": 5421, "season": 700}, "learned_values": {"color": 9},
                    "folds": {"train": 4000, "test": 412}, "products_read": 9000},
        "curves": {
            "precision_recall": {"color": {"text_only": CURVE, "both": CURVE, "image_masked": CURVE}},
            "reliability": {"color": BINS},
            "attention": {"color": WEIGHTS},
        },
        "tables": {
            "confusions": [
                {"attribute": "color", "true": "navy", "predicted": "blue", "products": 9},
                *({"attribute": "color", "true": f"c{n}", "predicted": "red", "products": 8 - n} for n in range(7)),
            ],
            "modalities": [modality("both", 0.4), modality("image_masked", 0.31), modality("text_masked", 0.399)],
            "values": [{"attribute": "color", "value": NASTY, "support": 30, "precision": 0.9, "recall": 0.8,
                        "f1": 0.85, "r_at_p95": 0.7}],
            "epochs": [epoch(1, 0.9, 0.8, "image"), epoch(1, 1.0, 0.9), epoch(2, 0.5, 0.7), epoch(3, 0.3, 0.75)],
            "mistakes": [mistake(), mistake(product_id="p2", title=NASTY, predicted="<b>green</b>", written=False)],
        },
        "pictures": {"p1": picture()},
    }  # fmt: skip
    return TrainedModel(**content | changes)
