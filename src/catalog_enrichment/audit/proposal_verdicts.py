"""The verdicts on drawn proposals of one attribute that may certify a model version (purpose "proposals").

The unit is a product. Verdicts on proposals of another version with the same files count: the scores are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.audit import reissue
from catalog_enrichment.audit.items import Answer, Purpose
from catalog_enrichment.audit.sampling import UNIFORM
from catalog_enrichment.catalog import verdicts
from catalog_enrichment.errors import DataContractError, RegistryError
from catalog_enrichment.precision.verdict_test import DrawnProducts
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.registry.model_registry import Registry, ResolvedModel

Row = Mapping[str, Any]

Path = tuple[Modality, str]
"""Modality path and compute type: what a certificate of an attribute is for."""


@dataclass(frozen=True, kw_only=True)
class JudgedProposals:
    """The drawn products of one modality path and compute type, n of them, in the order of the draws."""

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


def read(catalog: Catalog, registry: Registry, model: ResolvedModel, attribute: str) -> dict[Path, JudgedProposals]:
    """Return what was drawn of the proposals of ``model`` for ``attribute``, by path.

    Raises DataContractError if nothing was drawn, or only proposals of versions with other files.
    """
    rows = [
        row
        for row in verdicts.drawn(catalog)
        if row["purpose"] == Purpose.PROPOSALS.value and row["attribute"] == attribute
    ]
    drawn_of = sorted({row["model_version"] or "" for row in rows})
    versions = [version for version in drawn_of if _same_files(registry, model.version, version)]
    if not versions:
        raise DataContractError(_why_nothing(attribute, model.version, drawn_of))
    paths = _paths(registry, model, versions)
    windows = verdicts.sample_windows(catalog)
    of_path: defaultdict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        if row["model_version"] in versions and (path := paths.get(row["certificate_id"] or "")):
            of_path[path].append(row | {"lowest": float(windows[row["run_id"]].get("lowest") or 0.0)})
    if not of_path:
        raise DataContractError(
            f"the proposals for {attribute} that were drawn of version {', '.join(versions)} name none of its "
            "certificates, so their compute type is not known: draw a new sample"
        )
    said = verdicts.newest(catalog)
    return {path: judged(of_path[path], said) for path in sorted(of_path)}


def judged(rows: Sequence[Row], said: Mapping[str, Row]) -> JudgedProposals:
    """Return the products of the drawn ``rows``, which have the ``lowest`` score of their sample besides.

    ``rows``: of `audits`, in the order of the draws; ``said``: item id -> the verdict that counts. A product is where
    its uniformly drawn row is. Its other values, drawn with it, count as well.
    """
    of_product: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    products: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["sample_id"], row["product_id"])
        of_product[key].append(row)
        if row["stratum"] == UNIFORM:
            products.setdefault(key, row)
    keys = list(products)
    samples = {sample: number for number, sample in enumerate(dict.fromkeys(row["sample_id"] for row in rows))}
    wrong = [[one["score"] for one in of_product[key] if not _is_right(said.get(one["item_id"]))] for key in keys]
    return JudgedProposals(
        drawn=DrawnProducts(
            scores=np.array([max(one["score"] for one in of_product[key]) for key in keys], dtype=np.float64),
            wrong_scores=np.array([max(scores, default=-np.inf) for scores in wrong], dtype=np.float64),
            settled=np.array([all(one["item_id"] in said for one in of_product[key]) for key in keys], dtype=bool),
            lowest=np.array([products[key]["lowest"] for key in keys], dtype=np.float64),
            samples=np.array([samples[sample] for sample, _ in keys], dtype=np.int64),
            product_ids=tuple(product for _, product in keys),
        ),
        content_hashes=tuple(products[key]["content_hash"] or products[key]["product_id"] for key in keys),
        drawn_at=tuple(products[key]["drawn_at"] for key in keys),
        model_versions=tuple(sorted({row["model_version"] or "" for row in rows})),
        certificate_ids=tuple(sorted({row["certificate_id"] or "" for row in rows})),
    )


def _is_right(verdict: Row | None) -> bool:
    """Whether people said that the value is right; "cannot tell" and "has none" say that it is not."""
    if verdict is None:
        return False
    return verdict["answer"] == Answer.YES.value or (
        verdict["answer"] == Answer.OTHER.value and not verdicts.is_wrong(verdict)
    )


def _same_files(registry: Registry, version: str, other: str) -> bool:
    if version == other:
        return True
    try:
        return reissue.ancestors(registry, version)[-1] == reissue.ancestors(registry, other)[-1]
    except RegistryError:  # a version that was deleted
        return False


def _paths(registry: Registry, model: ResolvedModel, versions: Sequence[str]) -> dict[str, Path]:
    """Certificate id -> its paths, of ``model`` and of ``versions`` with the same files."""
    models = [model, *(registry.resolve(version=version) for version in versions if version != model.version)]
    return {one.certificate_id: (one.modality, one.compute_type) for of in models for one in of.certificates}


def _why_nothing(attribute: str, version: str, drawn_of: Sequence[str]) -> str:
    sample = f"audit_sample --of proposals --attribute {attribute} --model-version {version} --uniform 300"
    if not drawn_of:
        return f"no proposals for {attribute} were drawn for people to judge: {sample}"
    return (
        f"proposals for {attribute} were drawn of version {', '.join(drawn_of)}, whose files are not those of version "
        f"{version}: certify that one with --model-version, or draw of this one: {sample}"
    )
