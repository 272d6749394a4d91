"""The page of a training: what the version may write, what it may not write and why, and how good the model is.

Everything comes from a trained model's metrics, tables and curves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from catalog_enrichment import reasons
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate, RefusedCategory, RefusedLanguage
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality
from catalog_enrichment.report import value_tables
from catalog_enrichment.report.charts import (
    Axes,
    Line,
    Mark,
    certified_point,
    columns,
    kept_epoch,
    last_fall,
    line_chart,
)
from catalog_enrichment.report.run_page import TEMPLATES, Sample, folded, thumbnail
from catalog_enrichment.report.training_tables import Trained
from catalog_enrichment.web import pages

MOST_CONFUSIONS = 5
MOST_VALUES = 30
"""Rows of the tables of an attribute."""
MOST_REFUSED = 10
"""Refused categories and languages that are listed of a certificate."""

_SMALL = 0.005
"""A smaller loss of R@P95 by masking an input counts as none."""

_MORE_LABELS = re.compile(r"about [\d,]+ more (such )?labelled products")
"""Part of the reason of an abstention that more labels can end."""

MODALITIES = {
    "both": "text and picture",
    "image_masked": "picture masked",
    "text_masked": "text masked",
    "text_only": "a model of the text alone",
    "image_only": "a model of the picture alone",
}
"""Name in the table `modalities` -> in words, in the order of the page."""


class TrainedWithMistakes(Trained, Protocol):
    """The part of a trained model that the page is made from; the registry's TrainedModel has it."""

    @property
    def curves(self) -> Mapping[str, Mapping[str, Any]]:
        """``precision_recall`` by attribute and modality, ``reliability`` and ``attention`` by attribute."""
        ...

    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def pictures(self) -> Mapping[str, bytes]:
        """Product id -> encoded picture, of the table `mistakes`."""
        ...

    @property
    def seconds(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredTraining:
    """A trained model and the version that it became."""

    trained: TrainedWithMistakes
    model: str
    version: str
    run_id: str
    """The id of the MLflow run."""


def write_training_page(path: Path, training: RegisteredTraining) -> Path:
    """Write the page to ``path`` and return ``path``."""
    return pages.write(path, pages.render(TEMPLATES, "training.html.j2", page_values(training)))


def page_values(training: RegisteredTraining) -> dict[str, Any]:
    """Return the variables of training.html.j2."""
    trained = training.trained
    certificates = claim.about_products(trained.certificates)
    certified = [c for c in certificates if c.threshold is not None]
    several_paths = len({c.compute_type for c in certificates}) > 1
    return {
        "training": training,
        "trained_at": min((c.issued_at for c in certificates), default=None),
        "can_be_written": [_certified_text(c, several_paths) for c in certified],
        "cannot_be_written": [_refusal_text(c, several_paths) for c in certificates if c.threshold is None],
        "seldom_given": _seldom_given(trained),
        "judged_errors": [(row["attribute"], _judged_errors(row)) for row in trained.tables.get("judged_errors", [])],
        "partly": [text for certificate in certified for text in _refused_slices(certificate)],
        "to_do": _to_do(training, certified),
        "warnings": trained.warnings,
        "most_values": MOST_VALUES,
        "attributes": [_attribute(trained, name, several_paths) for name in _certified_first(certificates)],
        "without_pictures": _without_pictures(trained),
        "stages": _stages(trained.tables.get("epochs", [])),
        "data": _data(trained),
    }


# --- what can be written ------------------------------------------------------------------------------------------


def _certified_text(certificate: Certificate, several_paths: bool) -> dict[str, Any]:
    c, unlabelled_products = certificate, certificate.unlabelled_products
    filled = f"{c.accept_rate:.0%} of the {unlabelled_products:,} unlabelled products have such a score"
    return {
        "attribute": c.attribute,
        "certificate": c,
        "text": f"{_for_whom(c, several_paths)}: values with a score of {c.threshold:.3f} or more, of which at least "
        f"{c.lower_bound:.1%} are right ({c.wrong:,} of {c.accepted:,} tested products were wrong). {filled}. "
        f"{claim.rests_on(c)}",
    }


def _refusal_text(certificate: Certificate, several_paths: bool) -> dict[str, str]:
    return {
        "attribute": certificate.attribute,
        "text": f"{_for_whom(certificate, several_paths)}: {certificate.why_abstains}.",
    }


def _seldom_given(trained: TrainedWithMistakes) -> list[dict[str, Any]]:
    """Return categories in which merchants hardly ever give an attribute, and the dictionary's line without them."""
    by_attribute: dict[str, list[Mapping[str, Any]]] = {}
    for row in trained.tables.get("seldom_given", []):
        by_attribute.setdefault(row["attribute"], []).append(row)
    found = []
    for attribute, rows in by_attribute.items():
        listed = [f"{row['category']} ({row['labelled']:,} of {row['products']:,} products)" for row in rows]
        more = len(rows) - MOST_REFUSED
        text = "; ".join([*listed[:MOST_REFUSED], *([f"{more:,} more"] if more > 0 else [])])
        setting = f'"categories": {json.dumps(rows[0]["categories"])}'
        found.append({"attribute": attribute, "text": text, "setting": setting})
    return found


def _judged_errors(row: Mapping[str, Any]) -> str:
    """Say how many of the errors on the certification fold are wrong labels, and what is known of the others."""
    low, high = value_tables.exact_interval(row["wrong_labels"], row["judged"])
    text = (
        f"for {row['errors']:,} of {row['products']:,} labelled products the best value is not the merchant's. People "
        f"judged {row['judged']:,} of these: in {row['wrong_labels']:,} ({row['wrong_labels'] / row['judged']:.0%}, "
        f"95% interval {low:.0%} to {high:.0%}) the merchant is wrong and the model right."
    )
    if not (others := row["errors"] - row["judged"]):
        return text
    return (
        f"{text} Nobody judged the other {others:,}, which have lower scores than those that people are asked about: "
        "the share may be another there."
    )


def _for_whom(certificate: Certificate, several_paths: bool) -> str:
    computed = f", computed in {certificate.compute_type}" if several_paths else ""
    return f"products {claim.PATHS[certificate.modality]}{computed}"


def _refused_slices(certificate: Certificate) -> list[str]:
    """Say where a certificate allows nothing, with the labelled products that are missing there."""
    rows: list[RefusedLanguage | RefusedCategory] = [*certificate.refused_languages, *certificate.refused_categories]
    shown = sorted(rows, key=lambda row: -row.unlabelled_products)[:MOST_REFUSED]
    texts = []
    for row in shown:
        category = row.category if isinstance(row, RefusedCategory) else None
        case = reasons.Case(
            attribute=certificate.attribute,
            certificate=certificate,
            unseen=claim.unseen(certificate, [] if category is None else [category], [row.language]),
        )
        where = claim.language_name(row.language) if category is None else category or "products without a category"
        sentence = reasons.sentence(Reason.UNSEEN_SLICE, case)
        texts.append(f"{where}: {sentence}. {row.unlabelled_products:,} unlabelled products are there.")
    if len(rows) > len(shown):
        texts.append(f"{certificate.attribute}: {len(rows) - len(shown):,} more categories and languages like these.")
    return texts


def _to_do(training: RegisteredTraining, certified: Sequence[Certificate]) -> list[tuple[str, str]]:
    """Return steps as pairs of a command ("" for none) and what it is for."""
    promote = f"promote_model --config FILE --version {training.version}"
    commands = [
        (f"{promote} --dry-run", "shows what readers would see change, and promotes nothing"),
        (
            promote,
            "compares it with the champion and, if it is not worse, makes it the version that enrich_catalog uses",
        ),
    ]
    nothing = "Nothing can be written with this version. The sentences above say why and what helps."
    more = "Where a sentence above gives a number of labelled products, import so many more and train again."
    steps = commands if certified else [("", nothing)]
    refused = [c for c in claim.about_products(training.trained.certificates) if c.threshold is None]
    slices = any(c.refused_languages or c.refused_categories for c in certified)
    if slices or any(_MORE_LABELS.search(c.why_abstains) for c in refused):
        steps.append(("", more))
    if training.trained.warnings:
        steps.append(("", "Follow the advice in the warnings below."))
    return steps


# --- an attribute -------------------------------------------------------------------------------------------------


def _attribute(trained: TrainedWithMistakes, name: str, several_paths: bool) -> dict[str, Any]:
    """Return the summary row and the section of an attribute."""
    metrics = trained.metrics
    certificates = [c for c in claim.about_products(trained.certificates) if c.attribute == name]
    measured = Modality.TEXT_ONLY if _without_pictures(trained) else Modality.BOTH
    of_path = next((c for c in certificates if c.modality is measured), None)
    curve = trained.curves.get("precision_recall", {}).get(name, {})
    bins, weights = (trained.curves.get(kind, {}).get(name) for kind in ("reliability", "attention"))
    tested_on = metrics.get(f"{name}/products")
    return {
        "name": name,
        "labelled": trained.lineage.get("labelled_by_attribute", {}).get(name),
        "learned_values": trained.lineage.get("learned_values", {}).get(name),
        "tested_on": None if tested_on is None else int(tested_on),
        # of no product they would be 0
        "f1": _estimate(metrics if tested_on != 0 else {}, f"{name}/f1_macro"),
        "r_at_p95": _estimate(metrics if tested_on != 0 else {}, f"{name}/r_at_p95_micro"),
        "certified_recall": metrics.get(f"{name}/certified_recall"),
        "certified_precision": metrics.get(f"{name}/certified_precision"),
        "paths": [
            {"products": _for_whom(c, several_paths).removeprefix("products "), "certified": c.threshold is not None}
            for c in certificates
        ],
        "precision_recall": _precision_recall(name, curve, of_path) if curve else None,
        "reliability": _reliability(name, bins) if bins and bins["count"] else None,
        "calibration_error": bins["expected_error"] if bins else None,
        "attention": _attention(weights) if weights else None,
        "modalities": _modalities(trained.tables.get("modalities", []), name),
        "confusions": sorted(_rows(trained, "confusions", name), key=lambda row: -row["products"])[:MOST_CONFUSIONS],
        "values": _rows(trained, "values", name)[:MOST_VALUES],
        "by_value": value_tables.by_path(certificates),
        "mistakes": folded([_mistake(row, trained.pictures) for row in _rows(trained, "mistakes", name)]),
    }


def _without_pictures(trained: TrainedWithMistakes) -> bool:
    """Return whether no product of the training data has a picture: then the metrics are about the text."""
    return bool(trained.lineage.get("with_image") == 0)


def _rows(trained: TrainedWithMistakes, table: str, attribute: str) -> list[Mapping[str, Any]]:
    return [row for row in trained.tables.get(table, []) if row["attribute"] == attribute]


def _estimate(metrics: Mapping[str, float], name: str) -> str:
    """Return the metric in per cent, with its 95% interval where it has an interval: 44.2% (41.0 to 47.5)."""
    if name not in metrics:
        return "–"
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{metrics[name]:.1%}{interval}"


def _precision_recall(
    name: str, modalities: Mapping[str, Mapping[str, Sequence[float]]], certificate: Certificate | None
) -> dict[str, Any]:
    """Draw precision against recall of the whole model, with its certified threshold, and of each input alone."""
    threshold, marks = certificate.threshold if certificate else None, []
    point = certified_point(modalities["both"], threshold) if threshold is not None and "both" in modalities else None
    if point:
        marks = [Mark(name=f"certified: score {threshold:.3f} or more", x=point[0], y=point[1])]
    lines = [
        Line(
            name=_line_name(modality, certificate),
            x=modalities[modality]["recall"],
            y=modalities[modality]["precision"],
            css=modality.split("_")[0] if modality.endswith("_only") else _OTHER_INPUT.get(modality, "both"),
            dashed=modality.endswith("_masked"),
        )
        for modality in _in_order(modalities)
    ]
    target = certificate.target if certificate else 0.95
    return line_chart(f"{name}: precision and recall", Axes(x_name="recall", y_name="precision"), lines, marks, target)


def _line_name(modality: str, certificate: Certificate | None) -> str:
    if modality == "both" and certificate is not None and certificate.modality is Modality.TEXT_ONLY:
        return "text"
    return MODALITIES.get(modality, modality.replace("_", " "))


_OTHER_INPUT = {"image_masked": "text", "text_masked": "image"}
"""Masked input -> the input that is left, which names the line's colour."""


def _in_order(modalities: Iterable[str]) -> list[str]:
    known = list(MODALITIES)
    return sorted(modalities, key=lambda name: known.index(name) if name in known else len(known))


def _reliability(name: str, bins: Mapping[str, Any]) -> dict[str, Any]:
    lines = [
        Line(name="perfectly calibrated", x=[0.0, 1.0], y=[0.0, 1.0], css="soft", dashed=True),
        Line(name="this model", x=bins["confidence"], y=bins["accuracy"], css="both", dots=True),
    ]
    return line_chart(f"{name}: calibration", Axes(x_name="score", y_name="share that is right"), lines)


def _attention(weights: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    quantiles = weights.get("quantiles") or []
    return {
        "columns": columns(weights["edges"], weights["counts"]),
        "products": sum(weights["counts"]),
        "median": quantiles[len(quantiles) // 2] if quantiles else None,
    }


def _modalities(rows: Sequence[Mapping[str, Any]], attribute: str) -> list[dict[str, Any]]:
    """Return R@P95 and macro-F1 of the whole model, of masked and single inputs, and the cost of masking."""
    of_attribute = {row["modality"]: row for row in rows if row["attribute"] == attribute}
    whole, table = of_attribute.get("both"), []
    for modality in _in_order(of_attribute):
        row = of_attribute[modality]
        lost = None
        if whole and modality.endswith("_masked"):
            lost = whole["r_at_p95_micro"] - row["r_at_p95_micro"]
        table.append(
            {
                "name": MODALITIES.get(modality, modality.replace("_", " ")),
                "r_at_p95": row["r_at_p95_micro"],
                "f1": row["f1_macro"],
                "lost": "" if lost is None else "nothing" if lost < _SMALL else f"{100 * lost:.1f} points",
            }
        )
    return table if len(table) > 1 else []


def _mistake(row: Mapping[str, Any], pictures: Mapping[str, bytes]) -> dict[str, Any]:
    sample = Sample(
        product_id=row["product_id"],
        attribute=row["attribute"],
        value=row["predicted"],
        score=row["score"],
        title=row["title"],
        modality=row["modality"],
        attention=row["attention"],
        merchant_values=row["true"],
    )
    return {"sample": sample, "written": row["written"], "thumbnail": thumbnail(pictures.get(row["product_id"]))}


# --- the fit and its data -----------------------------------------------------------------------------------------


def _stages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a chart of the losses per recipe and stage, in the order in which they were fitted."""
    by_stage: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_stage.setdefault((row["recipe"], row["stage"]), []).append(row)
    return [_stage(recipe, stage, history) for (recipe, stage), history in by_stage.items()]


def _stage(recipe: str, stage: str, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    epochs, kept = [row["epoch"] for row in history], kept_epoch(history)
    losses = [row[name] for row in history for name in ("train_loss", "validation_loss") if isfinite(row[name])]
    low, high = min(losses, default=0.0), max(losses, default=1.0)
    room = 0.05 * (high - low) or 0.05
    name = "the whole model" if stage == recipe else stage
    title = name if stage == recipe or not recipe else f"{recipe}, {name}"
    lines = [
        Line(name="train", x=epochs, y=[row["train_loss"] for row in history], css="soft", dots=True),
        Line(name="validation", x=epochs, y=[row["validation_loss"] for row in history], css="both", dots=True),
    ]
    marks = [Mark(name="kept", x=kept["epoch"], y=kept["validation_loss"])] if kept else []
    axes = Axes(x_name="epoch", y_name="loss", x=(min(epochs), max(epochs)), y=(max(0.0, low - room), high + room))
    return {
        "title": title,
        "chart": line_chart(f"{title}: loss", axes, lines, marks),
        "epochs": len(history),
        "kept": int(kept["epoch"]) if kept else None,
        "still_falling": last_fall(history),
    }


def _data(trained: TrainedWithMistakes) -> list[tuple[str, str]]:
    """Return facts about the training data, name and text."""
    lineage, seconds = trained.lineage, sum(trained.seconds.values())
    folds = ", ".join(f"{name} {size:,}" for name, size in lineage.get("folds", {}).items())
    facts = [
        ("products read", _count(lineage.get("products_read"))),
        ("labelled", _count(lineage.get("labelled"))),
        ("with a usable picture", _count(lineage.get("with_image"))),
        ("folds (labelled products)", folds),
        ("in no fold, for a gold sample", _count(lineage.get("kept_for_gold_samples") or None)),
        ("content groups", _count(lineage.get("content_groups"))),
        ("duration", f"{seconds / 60:.1f} minutes" if seconds else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _certified_first(certificates: Sequence[Certificate]) -> list[str]:
    """Return the attributes, those with a certified path first."""
    names = dict.fromkeys(c.attribute for c in certificates)
    certified = {c.attribute for c in certificates if c.threshold is not None}
    return sorted(names, key=lambda name: name not in certified)
