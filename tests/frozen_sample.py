"""Makes tests/frozen/v0.1.0: what this release writes, for later releases to read (tests/frozen/README.md).

    python -m tests.frozen_sample

Everything is made in :data:`PLACE`, because tables and feeds name their files by absolute paths and must not name the
machine that made them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.enrichment import backfill
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.operations import rollback
from catalog_enrichment.spark import session

from . import sample_catalog
from .sample_catalog import CONFIG, SampleCatalog, listing

PLACE = Path("/srv/catalog-sample/sample")
TARGET = Path(__file__).parent / "frozen" / "v0.1.0"
PRODUCTS = 13


def feed(sample: SampleCatalog, **changed_titles: str) -> None:
    """Write the feed. Listings with an even number carry their picture's bytes, the others its file name."""
    rows = []
    for number in range(PRODUCTS):
        row = listing(number, picture=None)
        if number % 2 == 0:
            row |= {"picture": (sample.folder / "feed" / row["image"]).read_bytes(), "image": None}
        rows.append(row | {"title": changed_titles.get(row["product_id"], row["title"])})
    rows[5]["image"] = "nosuch.jpg"
    rows[6]["opt_out"] = True
    rows[7]["title"] = " "
    schema = pa.schema([*((name, pa.string()) for name in rows[0] if name not in ("opt_out", "picture")),
                        ("opt_out", pa.bool_()), ("picture", pa.binary())])  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sample.folder / "feed" / "products.parquet")


def make(folder: Path, scratch: Path) -> SampleCatalog:
    """Import, run version 1, roll back one attribute, import a changed title, backfill with version 2 in chunks."""
    sample = sample_catalog.build(folder)
    config = CONFIG.replace('format = "jsonl"', 'format = "parquet"').replace("products.jsonl", "products.parquet")
    config = config.replace('image_uris = "image"', 'image_uris = "image"\nimage_bytes = "picture"')
    sample.file.write_text(config.partition("[images.fetch]")[0])
    sample = SampleCatalog(folder, sample.with_settings().config, session.start(sample.config, "frozen sample"))
    feed(sample)
    sample.import_products()
    sample_catalog.register(sample, scratch, seed=1)
    sample.promotion.promote("1", expected_current=None)
    first = sample_catalog.enrich(sample)
    rollback.rollback_run(sample.context().catalog, first["run_id"], attribute="material")
    feed(sample, p001="Blue wool jacket")
    sample.import_products()
    sample_catalog.register(sample, scratch, seed=2)
    sample.promotion.promote("2", expected_current="1")
    chunked = sample.with_settings("backfill.chunk_products=5")
    backfill.backfill(chunked.context(), sample.model(), Window(categories=("Apparel",)))
    return sample


def keep(sample: SampleCatalog, target: Path) -> None:
    """Copy everything but the MLflow store, whose paths are absolute, to ``target``."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(sample.folder / "feed", target / "feed")
    shutil.copytree(sample.folder / "catalog", target / "catalog", ignore=shutil.ignore_patterns("*.lock", "_staging"))
    shutil.copytree(sample.model().artifact, target / "model")
    for name in ("config.toml", "attributes.json"):
        shutil.copy(sample.folder / name, target / name)
    catalog = Catalog(target / "catalog")
    rows = {name: sum(batch.num_rows for batch in catalog.scan(name)) for name in contract.TABLES}
    write_json(target / "rows.json", {name: number for name, number in rows.items() if number})
    client, name = sample.registry.connect(), sample.registry.name
    aliases = {version: alias for alias, version in client.get_registered_model(name).aliases.items()}
    versions = [client.get_model_version(name, version) for version in ("2", "1")]
    write_json(
        target / "registry.json",
        [{"version": str(known.version), "alias": aliases.get(str(known.version)), "tags": known.tags}
         for known in versions],
    )  # fmt: skip


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    shutil.rmtree(PLACE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch_folder:
        keep(make(PLACE, Path(scratch_folder)), TARGET)
    print(f"made {TARGET}: {(TARGET / 'rows.json').read_text()}")
