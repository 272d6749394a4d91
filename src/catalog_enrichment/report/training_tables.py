"""The last lines of a training in a terminal: per attribute how good the model is, and what it may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from catalog_enrichment.monitoring.text_tables import ATTRIBUTE, Column, aligned_table, count, share, text
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate


class Trained(Protocol):
    """The part of a trained model that the tables are made from; the registry's TrainedModel has it."""

    @property
    def certificates(self) -> Sequence[Certificate]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def tables(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """``confusions``: rows of attribute, true, predicted, products, most frequent first."""
        ...

    @property
    def lineage(self) -> Mapping[str, Any]:
        """``labelled_by_attribute``: attribute -> labelled products."""
        ...


CONFUSIONS = 3
"""Pairs of values that are listed per attribute."""

_QUALITY = (
    ATTRIBUTE,
    Column("labelled", count("labelled")),
    Column("tested on", count("products")),
    Column("accuracy", share("accuracy")),
    Column("F1 (macro)", share("f1_macro")),
    Column("R@P95", share("r_at_p95_micro")),
    Column("certified recall", share("certified_recall")),
)
_CERTIFICATES = (
    ATTRIBUTE,
    Column("products", text("products"), "<"),
    Column("numbers", text("compute_type"), "<"),
    Column("written at score", text("threshold")),
    Column("certificate", text("tested"), "<"),
)


def training_tables(trained: Trained) -> str:
    """Return two tables, quality on the test fold and certificates, and the most frequent confusions per attribute."""
    certificates = claim.about_products(trained.certificates)
    attributes = dict.fromkeys(certificate.attribute for certificate in certificates)
    parts = [
        aligned_table([_quality(trained, name) for name in attributes], _QUALITY),
        aligned_table([_certificate(certificate) for certificate in certificates], _CERTIFICATES),
        *_confusions(trained.tables.get("confusions", [])),
    ]
    return "\n\n".join(parts)


def _quality(trained: Trained, attribute: str) -> dict[str, Any]:
    tested_on = trained.metrics.get(f"{attribute}/products")
    with_pictures = ("accuracy", "f1_macro", "r_at_p95_micro") if tested_on != 0 else ()  # of none they would be 0
    return {
        "attribute": attribute,
        "labelled": trained.lineage.get("labelled_by_attribute", {}).get(attribute),
        "products": None if tested_on is None else int(tested_on),
        **{name: trained.metrics.get(f"{attribute}/{name}") for name in (*with_pictures, "certified_recall")},
    }


def _certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "attribute": certificate.attribute,
        "products": claim.PATHS[certificate.modality],
        "compute_type": certificate.compute_type,
        "threshold": "-" if certificate.threshold is None else f"{certificate.threshold:.4f}",
        "tested": claim.tested(certificate),
    }


def _confusions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a block of lines; empty without any confusion."""
    lines = []
    for attribute in dict.fromkeys(row["attribute"] for row in rows):
        pairs = [row for row in rows if row["attribute"] == attribute][:CONFUSIONS]
        listed = "; ".join(f"{row['true']!r} taken for {row['predicted']!r} ({row['products']})" for row in pairs)
        lines.append(f"{attribute}, most often wrong: {listed}")
    return ["\n".join(lines)] if lines else []
