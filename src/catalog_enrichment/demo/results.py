"""What the demo's run wrote under each certificate, compared with the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.precision import claim
from catalog_enrichment.report.tables import Column, count, share, text

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.precision.certificate import Certificate

PATH_COLUMNS = (
    Column("attribute", text("attribute"), "<"),
    Column("products", text("products"), "<"),
    Column("written", count("written")),
    Column("right", share("precision")),
    Column("certificate", text("certificate"), "<"),
)
"""Columns of the table of :func:`path_results`."""


class Written(NamedTuple):
    """Products that a run gave values of an attribute, and those of them that got no wrong value."""

    products: int
    right: int


def written_by_certificate(catalog: Catalog, truth: Path, run_id: str) -> dict[str, Written]:
    """Certificate id -> what ``run_id`` wrote under it that readers see. ``truth``: as the marketplace writes it."""
    import pyarrow.parquet as pq

    true_values = {
        (row["product_id"], row["attribute"]): set(row["values"]) for row in pq.read_table(truth).to_pylist()
    }
    products, right = Counter[str](), Counter[str]()
    for batch in catalog.scan("current_values", ("product_id", "attribute", "values", "run_id", "certificate_id")):
        for row in batch.to_pylist():
            if row["run_id"] == run_id:
                products[row["certificate_id"]] += 1
                right[row["certificate_id"]] += set(row["values"]) <= true_values[row["product_id"], row["attribute"]]
    return {certificate_id: Written(products[certificate_id], right[certificate_id]) for certificate_id in products}


def path_results(certificates: Iterable[Certificate], written: Mapping[str, Written]) -> list[dict[str, Any]]:
    """Per attribute and modality path, what its certificate says and what was written under it."""
    return [_path_result(c, written.get(c.certificate_id, Written(0, 0))) for c in certificates]


def precision_of(paths: Iterable[Mapping[str, Any]], attribute: str) -> float | None:
    """Share of the products written to, on both paths, that are right; None where none was."""
    of_attribute = [path for path in paths if path["attribute"] == attribute]
    return _share(*(sum(path[key] for path in of_attribute) for key in ("right", "written")))


def _path_result(certificate: Certificate, written: Written) -> dict[str, Any]:
    return {
        "attribute": certificate.attribute,
        "modality": certificate.modality.value,
        "products": claim.PATHS[certificate.modality],
        "certified": certificate.threshold is not None,
        "certificate": claim.tested(certificate),
        "written": written.products,
        "right": written.right,
        "precision": _share(written.right, written.products),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
