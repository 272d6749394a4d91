"""The generated catalog of `make scale`: its snapshots, its config, and a model that costs nothing.

Products have a title of about 60 and a description of about 250 characters, a picture by reference, and merchant
values for a part of three attributes; every value is a function of the product's number and the snapshot's seed. The
model is replaced by a Spark expression that gives each pending attribute a candidate whose score depends on the
content, so that what is measured is everything but inference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.inference import udf
from catalog_enrichment.models.spec import Head
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.proposers.network import NetworkProposer
from catalog_enrichment.records import Cardinality, Modality, Op, Source
from catalog_enrichment.registry.model_registry import ResolvedModel

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

ATTRIBUTES = {
    "color": ("Red", "Green", "Blue", "Black", "White", "Grey", "Brown", "Pink"),
    "material": ("Cotton", "Wool", "Leather", "Polyester", "Silk", "Denim"),
    "season": ("Summer", "Winter", "All year"),
}
GIVEN = {"color": 0.5, "material": 0.3, "season": 0.1}
"""Attribute -> share of products with a merchant value."""

APPLIES = {"material": ["Apparel", "Shoes", "Bags"]}
"""Attribute -> the categories that it applies to, where it does not apply to all."""

CATEGORIES = tuple(f"{top}/{sub}" for top in ("Apparel", "Shoes", "Home", "Bags") for sub in ("A", "B", "C", "D"))
WORDS = tuple(f"word{number}" for number in range(2_000))
THRESHOLD = 0.6
"""Threshold of the certificates; the scores are uniform, so two fifths of what is pending is written."""

ROWS_PER_FILE = 100_000
UPDATED_TOGETHER = 10_000
"""Products with the same `updated_at`, a day after the products before them: what a chunk of a backfill has."""
SHOPS = 97
"""Shops of a catalog, unless `--shops` says otherwise."""
SOURCE = "feed"

CONFIG = """
[catalog]
path = "catalog"
dictionary = "attributes.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
[source]
format = "parquet"
path = "feed"
[source.mapping]
description = "description"
shop_id = "shop"
category = "category"
image_uris = "picture"
updated_at = "updated_at"
[source.mapping.attributes]
color = "color"
material = "material"
season = "season"
[images]
sample = 0
[precision]
provisional_cap = 100000000
[enrich]
max_changes = 100000000
"""


def write_config(root: Path, memory: str) -> Config:
    """The config of a catalog in ``root``; ``memory``: of Spark's driver, as `4g`."""
    content = [{"name": name, "cardinality": "one", "values": list(values)} for name, values in ATTRIBUTES.items()]
    (root / "attributes.json").write_text(json.dumps({"attributes": content}))
    (root / "config.toml").write_text(CONFIG)
    return load_config(root / "config.toml", [f"spark.driver_memory={memory}"])


def write_snapshot(root: Path, products: int, shops: int = SHOPS, changed: float = 0.0, edition: int = 0) -> int:
    """Write the snapshot in place of the last snapshot; a share of ``changed`` has another title, which ``edition``
    draws. Return its bytes."""
    folder = root / SOURCE
    folder.mkdir(exist_ok=True)
    for first in range(0, products, ROWS_PER_FILE):
        count = min(ROWS_PER_FILE, products - first)
        pq.write_table(
            _rows(first, count, shops, changed, edition), folder / f"part-{first:09d}.parquet", compression="zstd"
        )
    return sum(file.stat().st_size for file in folder.iterdir())


def _rows(first: int, count: int, shops: int, changed: float, edition: int) -> pa.Table:
    draw = np.random.default_rng([1, first])
    ids = np.arange(first, first + count)
    # the title names the product's number: a content that no other product has, as most of a marketplace's
    words = draw.integers(0, len(WORDS), (count, 40))
    texts = np.array(WORDS)[words]
    new = np.random.default_rng([2, first, edition]).random(count) < changed
    endings = np.where(new, f" edition {edition}", "")
    titles = [f"{' '.join(row[:6])} {number}{more}" for row, number, more in zip(texts, ids, endings, strict=True)]
    columns: dict[str, Any] = {
        "product_id": [f"P{number:09d}" for number in ids],
        "title": titles,
        "description": [" ".join(row[6:]) for row in texts],
        "shop": [f"shop-{number % shops}" for number in ids],
        "category": [CATEGORIES[number % len(CATEGORIES)] for number in ids],
        "picture": [f"https://pictures.example/{number}.jpg" for number in ids],
        "updated_at": pa.array(np.datetime64("2026-01-01", "us") + ids // UPDATED_TOGETHER * np.timedelta64(1, "D")),
    }
    for name, values in ATTRIBUTES.items():
        chosen, given = draw.integers(0, len(values), count), draw.random(count) < GIVEN[name]
        columns[name] = [values[i] if there else None for i, there in zip(chosen, given, strict=True)]
    return pa.table(columns)


def updated_on(first: int, days: int) -> Window:
    """The products that were updated on ``days`` days, from the day ``first`` on: UPDATED_TOGETHER per day."""
    start = datetime(2026, 1, 1) + timedelta(days=first)
    return Window(updated_from=start.isoformat(), updated_until=(start + timedelta(days=days)).isoformat())


def model(certificates: tuple[Certificate, ...]) -> ResolvedModel:
    proposer = NetworkProposer(
        folder=Path(),
        artifact_hash="stub",
        heads={name: Head(cardinality=Cardinality.ONE, labels=values) for name, values in ATTRIBUTES.items()},
        weights_hash="w",
        preprocessing_hash="p",
    )
    return ResolvedModel(
        name="stub", version="1", artifact=Path(), artifact_hash="stub", proposer=proposer, certificates=certificates
    )


def certificates(usual: Certificate) -> tuple[Certificate, ...]:
    """``usual`` for every attribute, in force."""
    issued = datetime.now(UTC) - timedelta(days=1)
    return tuple(
        replace(
            usual, attribute=name, modality=Modality.BOTH, values=values, threshold=THRESHOLD, suggest_threshold=0.5,
            categories=CATEGORIES, issued_at=issued, expires_at=issued + timedelta(days=90),
        )
        for name, values in ATTRIBUTES.items()
    )  # fmt: skip


@contextmanager
def stub_predictor() -> Iterator[None]:
    """A block in which scoring is a Spark expression instead of a UDF with a model."""
    with mock.patch.object(udf, "ship"), mock.patch.object(udf, "scored", _scored):
        yield


def _scored(products: DataFrame, *_: Any) -> DataFrame:
    """Return a candidate per pending attribute, drawn by the content's hash; the columns of SCORED_TYPE."""
    from pyspark.sql import functions as F

    candidates = []
    for name, values in ATTRIBUTES.items():
        drawn = F.xxhash64("content_hash", F.lit(name))
        value = F.element_at(F.array(*map(F.lit, values)), (F.pmod(drawn, F.lit(len(values))) + 1).cast("int"))
        score = F.pmod(F.shiftright(drawn, 8), F.lit(10_000)) / 10_000.0
        candidates.append(F.struct(
            F.lit(name).alias("attribute"), value.alias("value"), F.lit(1).alias("rank"), score.alias("score"),
            F.lit(None).cast("double").alias("attention"),
            F.lit(None).cast("string").alias("evidence"),
        ))  # fmt: skip
    none = F.lit(None).cast("string")
    scored = {
        "candidates": F.array(*candidates), "modality": F.lit(Modality.BOTH.value),
        "compute_type": F.lit("fp32-cpu"), "image_reason": none, "error": none, "detail": none,
    }  # fmt: skip
    return products.drop("images").withColumns(scored)


def grow_ledger(catalog: Catalog, events: int, products: int) -> int:
    """Append ``events`` values that eight earlier runs wrote; all of them stand. Returns how many there are."""
    from pyspark.sql import functions as F

    number, names = F.col("id"), list(ATTRIBUTES)
    run = (number * 8 / events).cast("int")
    values: dict[str, Column] = {
        "event_id": F.sha2(number.cast("string"), 256),
        "product_id": F.format_string("P%09d", number % products),
        "attribute": F.element_at(F.array(*map(F.lit, names)), ((number / products) % len(names) + 1).cast("int")),
        "value": F.lit("Red"),
        "op": F.lit(Op.ASSERT.value),
        "source": F.lit(Source.MODEL.value),
        "run_id": F.concat(F.lit("history-"), run.cast("string")),
        "asserted_at": F.timestamp_seconds(F.lit(1_700_000_000) + run),
        "score": F.lit(0.9),
        "content_hash": F.sha2(F.concat(F.lit("c"), number.cast("string")), 256),
        "modality": F.lit(Modality.BOTH.value),
        "certificate_id": F.lit("c" * 64),
        "model_name": F.lit("stub"),
        "model_version": F.lit("0"),
    }
    fields = contract.spark_schema("attribute_values")
    rows = catalog.read("attribute_values").sparkSession.range(events)
    columns = [values.get(f.name, F.lit(None)).cast(f.dataType).alias(f.name) for f in fields]
    return catalog.append("attribute_values", rows.select(columns), "history")
