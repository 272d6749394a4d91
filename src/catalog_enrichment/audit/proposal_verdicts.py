"""The verdicts on drawn proposals that may certify a model version, and the unlabelled products they were drawn of.

The unit is a product. Verdicts on proposals of another version with the same files count: the scores are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.audit import draws, reissue
from catalog_enrichment.audit.draws import UNIFORM
from catalog_enrichment.audit.review_records import Answer, Purpose
from catalog_enrichment.catalog import review_tables, runs
from catalog_enrichment.errors import DataContractError, RegistryError
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS, Certificate
from catalog_enrichment.precision.verdict_certificates import UnlabelledPopulation
from catalog_enrichment.precision.verdict_test import DrawnProducts
from catalog_enrichment.records import Modality, RunStatus
from catalog_enrichment.spark.frames import bin_of

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import Registry, ResolvedModel

Row = Mapping[str, Any]

CertifiedPath = tuple[Modality, str]
"""Modality path and compute type: what a certificate of an attribute is for."""


@dataclass(frozen=True, kw_only=True)
class JudgedProposals:
    """The drawn products of a modality path and compute type, n of them, in the order of the draws."""

    drawn: DrawnProducts
    content_hashes: tuple[str, ...]
    """(n,)"""
    drawn_at: tuple[datetime, ...]
    """(n,) when the product's sample was drawn."""
    model_versions: tuple[str, ...]
    """Versions with the same files whose proposals were drawn."""
    certificate_ids: tuple[str, ...]
    """The certificates that these versions' decisions consulted."""

    @property
    def data_window(self) -> str:
        """The first and the last day of a draw, as an ISO interval."""
        return f"{min(self.drawn_at):%Y-%m-%d}/{max(self.drawn_at):%Y-%m-%d}"


def read(
    catalog: Catalog, registry: Registry, model: ResolvedModel, attribute: str
) -> dict[CertifiedPath, JudgedProposals]:
    """Return the drawn proposals of ``model`` for ``attribute``, by path.

    Raises DataContractError if nothing was drawn, or only proposals of versions with other files.
    """
    rows = [
        row
        for row in review_tables.drawn(catalog)
        if row["purpose"] == Purpose.PROPOSALS.value and row["attribute"] == attribute
    ]
    drawn_of = sorted({row["model_version"] or "" for row in rows})
    versions = [version for version in drawn_of if _same_files(registry, model.version, version)]
    if not versions:
        raise DataContractError(_why_nothing(attribute, model.version, drawn_of))
    models = [model, *(registry.resolve(version=version) for version in versions if version != model.version)]
    paths = {
        certificate.certificate_id: (certificate.modality, certificate.compute_type)
        for known in models
        for certificate in known.certificates
    }
    windows = review_tables.sample_windows(catalog)
    of_path: defaultdict[CertifiedPath, list[Row]] = defaultdict(list)
    for row in rows:
        if row["model_version"] in versions and (path := paths.get(row["certificate_id"] or "")):
            of_path[path].append(row | {"lowest": float(windows[row["run_id"]].get("lowest") or 0.0)})
    if not of_path:
        raise DataContractError(
            f"the proposals for {attribute} that were drawn of version {', '.join(versions)} name none of its "
            "certificates, so their compute type is not known: draw a new sample"
        )
    newest = review_tables.newest(catalog)
    return {path: judged(of_path[path], newest) for path in sorted(of_path)}


def judged(rows: Sequence[Row], verdict_of: Mapping[str, Row]) -> JudgedProposals:
    """Return the products of the drawn ``rows``, which have the ``lowest`` score of their sample besides.

    ``rows``: of `audits`, in the order of the draws; ``verdict_of``: item id -> the verdict that counts. The place of a
    product is that of its uniformly drawn row. Its other values, drawn with it, count as well.
    """
    of_product: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    products: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["sample_id"], row["product_id"])
        of_product[key].append(row)
        if row["stratum"] == UNIFORM:
            products.setdefault(key, row)
    values = [of_product[key] for key in products]
    samples = {sample: number for number, sample in enumerate(dict.fromkeys(row["sample_id"] for row in rows))}
    wrong = [[row["score"] for row in own if not _is_right(verdict_of.get(row["item_id"]))] for own in values]
    return JudgedProposals(
        drawn=DrawnProducts(
            scores=np.array([max(row["score"] for row in own) for own in values], dtype=np.float64),
            wrong_scores=np.array([max(scores, default=-np.inf) for scores in wrong], dtype=np.float64),
            settled=np.array([all(row["item_id"] in verdict_of for row in own) for own in values], dtype=bool),
            lowest=np.array([row["lowest"] for row in products.values()], dtype=np.float64),
            samples=np.array([samples[sample] for sample, _ in products], dtype=np.int64),
            product_ids=tuple(product for _, product in products),
        ),
        content_hashes=tuple(row["content_hash"] or row["product_id"] for row in products.values()),
        drawn_at=tuple(row["drawn_at"] for row in products.values()),
        model_versions=tuple(sorted({row["model_version"] or "" for row in rows})),
        certificate_ids=tuple(sorted({row["certificate_id"] or "" for row in rows})),
    )


def _is_right(verdict: Row | None) -> bool:
    """Return whether people said that the value is right; "cannot tell" and "has none" say that it is not."""
    if verdict is None:
        return False
    return verdict["answer"] == Answer.YES.value or (
        verdict["answer"] == Answer.OTHER.value and not review_tables.is_wrong(verdict)
    )


def _same_files(registry: Registry, version: str, other: str) -> bool:
    if version == other:
        return True
    try:
        return reissue.ancestors(registry, version)[-1] == reissue.ancestors(registry, other)[-1]
    except RegistryError:  # a version that was deleted
        return False


def _why_nothing(attribute: str, version: str, drawn_of: Sequence[str]) -> str:
    sample = f"audit_sample --of proposals --attribute {attribute} --model-version {version} --uniform 300"
    if not drawn_of:
        return f"no proposals for {attribute} were drawn for people to judge: {sample}"
    return (
        f"proposals for {attribute} were drawn of version {', '.join(drawn_of)}, whose files are not those of version "
        f"{version}: certify version {drawn_of[-1]} with --model-version, or draw of version {version}: {sample}"
    )


def population(
    context: Context, old: Certificate, proposals: JudgedProposals, places: Sequence[int], threshold: float
) -> UnlabelledPopulation:
    """Return the unlabelled products of the path of ``old`` that had been scored when the first product was drawn.

    ``places``: of the drawn products that count; ``threshold``: the certified threshold. Products that were scored
    later are left out: a category that had no product at the first draw is not certified. The slices of the drawn
    products are included, also of products that a person has given a value since. A slice is that of the product when
    it was scored.
    """
    from pyspark.sql import functions as F

    catalog = context.catalog
    before = min(proposals.drawn_at[place] for place in places)
    known = runs.rows(catalog, ["run_id", "status", "finished_at"])
    ids = [
        (row["run_id"],) for row in known if row["status"] == RunStatus.SUCCEEDED.value and row["finished_at"] <= before
    ]
    early = F.broadcast(context.spark.createDataFrame(ids, "run_id string"))
    of_path = (F.col("attribute") == old.attribute) & F.col("certificate_id").isin(list(proposals.certificate_ids))
    frames = [
        draws.proposed(catalog, context.dictionary, version, 0.0, ()).where(of_path)
        for version in proposals.model_versions
    ]
    scored = reduce(lambda first, second: first.unionByName(second), frames).withColumnRenamed("decided_by", "run_id")
    tops = scored.join(early, "run_id", "left_semi").groupBy("product_id").agg(F.max("score").alias("top"))
    accepted = F.sum((F.col("top") >= threshold).cast("int"))
    bins = tops.groupBy(bin_of("top", HISTOGRAM_BINS))
    counted = bins.agg(F.count("*").alias("products"), accepted.alias("accepted")).collect()
    histogram = [0] * HISTOGRAM_BINS
    for row in counted:
        histogram[row["bin"]] += row["products"]
    number = sum(histogram)

    product_ids = [(proposals.drawn.product_ids[place],) for place in places]
    drawn = context.spark.createDataFrame(product_ids, "product_id string")
    lowest = float(min(proposals.drawn.lowest[place] for place in places))
    drawable = catalog.read("predictions").where(of_path & (F.col("score") >= lowest))
    seen = drawable.join(early, "run_id", "left_semi").join(
        tops.select("product_id").unionByName(drawn).distinct(), "product_id", "left_semi"
    )
    slices = seen.select("language", "category").distinct().collect()
    return UnlabelledPopulation(
        products=number,
        histogram=tuple(histogram),
        accept_rate=sum(row["accepted"] for row in counted) / number if number else 0.0,
        slices={(row["language"] or "", row["category"] or "") for row in slices},
    )
