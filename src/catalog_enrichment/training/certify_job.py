"""certify_model for a model or answers that were made elsewhere: proposals -> certificates -> registry. No fit.

Proposals are made by Spark, as a run of enrichment makes them (I8); the certification is that of a training.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import human_labels, self_derived
from catalog_enrichment.context import follow_dictionary
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.proposers.given import Calibrations
from catalog_enrichment.proposers.pinning import Pinned, Shelf, pinned
from catalog_enrichment.proposers.protocol import Asked, Proposer
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.spark import api_mode
from catalog_enrichment.spark.frames import arrow_batch_rows, with_ids
from catalog_enrichment.training import proposals, seen_products
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset
from catalog_enrichment.training.job import earlier_candidates, told
from catalog_enrichment.training.proposals import Source, settings_of
from catalog_enrichment.training.task import attributes_of

if TYPE_CHECKING:
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import Registry

PICTURE_SIDE = 64
"""Pixels of the side to which pictures are decoded, to see which are usable and which are the same."""

MAX_CHARS = 4000
"""Characters of a text that the comparison of labelled and unlabelled products reads."""


def certify_proposals(context: Context, registry: Registry) -> dict[str, Any]:
    """Certify what `[proposer]` names and register it as the candidate. Returns the job's summary.

    Raises RegistryError if the registry does not have the model, DataContractError without products or answers, and
    ConfigError for a declaration that cannot be read.
    """
    config, catalog, stages = context.config, context.catalog, Stages(context.say)
    settings = settings_of(config)
    registry.connect(create=True)
    catalog.check_has_products()
    declared = seen_products.Declaration.of(settings.trained_on, config)
    names = attributes_of(settings, context.dictionary)
    attributes = Dictionary({name: context.dictionary[name] for name in names})
    shelf = Shelf(find=registry.store.pinned, fetch=registry.store.fetch_model, catalog=catalog)
    found = pinned(settings, attributes, seen_products.sentence(declared), shelf)
    proposer = found.version.proposer(registry.store.fetch_model)
    stages.say(f"certifying {proposer.name}. {seen_products.sentence(declared)}")

    with tempfile.TemporaryDirectory(prefix="catalog-enrichment-") as folder:
        workdir = Path(folder)
        with stages("load") as stage:
            dataset = _load(context, names, found.reads_pictures, workdir)
            stage.rows_in, stage.rows_out = dataset.counts["products_read"], len(dataset)

        def save(version: Path, calibrations: Calibrations) -> Proposer:
            calibrated = replace(found.version, calibrations=dict(calibrations))
            calibrated.save(version)
            return calibrated.proposer(registry.store.fetch_model)

        source = Source(
            name=proposer.name,
            declared=declared,
            made_at=found.made_at,
            propose=lambda ids: propose(context, proposer, ids),
            save=save,
            facts=_facts(found),
        )
        earlier = earlier_candidates(catalog, Promotion(registry, follow_dictionary(config, catalog)))
        certified = proposals.certify(dataset, config, source, workdir, earlier, stages)
        with stages("register"), registry.training_run(proposer.name, "certify_model") as run:
            version = registry.register(certified, run)
    for line in _unused(certified.lineage["proposals"]):
        stages.say(line)
    about = {"proposer": proposer.name, "trained_on": seen_products.sentence(declared)}
    return told(certified, version, config, registry, stages) | about


def _load(context: Context, names: Sequence[str], reads_pictures: bool, workdir: Path) -> Dataset:
    """Read the products. Raises GateRefused where the proposer reads pictures and too many of them are unusable."""
    config, catalog = context.config, context.catalog
    products = human_labels.with_labels(catalog, self_derived.scan_products(catalog))
    options = LoadOptions(
        attributes=list(names),
        square=Square(PICTURE_SIDE) if reads_pictures else None,
        max_chars=MAX_CHARS,
        images=config.pictures(),
        workdir=workdir,
        max_unlabelled=settings_of(config).max_unlabelled,
    )
    dataset = load_dataset(human_labels.with_gold_labels(catalog, products), context.dictionary, options)
    if dataset.unusable.too_many(config.images.max_unusable):
        raise GateRefused(
            f"{dataset.unusable.sentence()} Nothing was certified; --set images.max_unusable=1 certifies with what "
            "there is"
        )
    return dataset


def propose(
    context: Context, proposer: Proposer, product_ids: Sequence[str]
) -> tuple[dict[str, list[tuple[str, str, float]]], dict[str, Any]]:
    """Return product id -> its proposals (attribute, value, score), and counts: as a run of enrichment makes them."""
    import pyarrow as pa
    from pyspark.sql import functions as F

    config, catalog = context.config, context.catalog
    columns = ("product_id", "title", "description", "category", "language", "images", "content_hash")
    some = with_ids(context.spark, pa.array(list(product_ids), pa.string()))
    products = catalog.read("products").select(*columns).join(some, "product_id")
    cores = 2 * api_mode.of(context.spark).parallelism()
    products = products.repartition(config.enrich.partitions or cores, "content_hash")
    asked = Asked(catalog=catalog, images=config.pictures(), forward_rows=config.enrich.forward_rows)
    found: dict[str, list[tuple[str, str, float]]] = {}
    failed, counts = Counter[str](), Counter[tuple[str, str]]()
    with arrow_batch_rows(context.spark, config.enrich.batch_rows):
        scored = proposer.propose(products, asked).select("product_id", "error", "detail", F.col("candidates"))
        for row in scored.toArrow().to_pylist():
            if row["error"]:
                failed[row["error"]] += 1
                continue
            found[row["product_id"]] = [(each["attribute"], each["value"], each["score"]) for each in row["candidates"]]
            for name, problems in json.loads(row["detail"] or "{}").items():
                counts.update({(name, text): number for text, number in problems.items()})
    by_attribute: dict[str, dict[str, int]] = {}
    for (name, text), number in counts.most_common():
        by_attribute.setdefault(name, {})[text] = number
    proposing = Counter(name for rows in found.values() for name in {name for name, value, _ in rows if value})
    told_of = {"not_scored": dict(failed), "not_used": by_attribute}
    counted = {"products": len(product_ids), "proposing": dict(proposing)}
    return found, counted | {name: numbers for name, numbers in told_of.items() if numbers}


_MOST_EXAMPLES = 10


def _unused(counts: Mapping[str, Any]) -> list[str]:
    """Return a line per attribute with answers that could not be used, and one for products without scores."""
    failed = counts.get("not_scored", {}).items()
    lines = [f"warning: {number:,} products could not be scored ({reason})" for reason, number in failed]
    for name, problems in counts.get("not_used", {}).items():
        shown = ", ".join(f"{text} ({number:,})" for text, number in list(problems.items())[:_MOST_EXAMPLES])
        more = f" and {len(problems) - _MOST_EXAMPLES:,} others" if len(problems) > _MOST_EXAMPLES else ""
        lines.append(f"{name}: not used: {shown}{more}")
    return lines


def _facts(found: Pinned) -> dict[str, Any]:
    named = ("kind", "model", "model_hash", "name", "version", "answers_hash")
    facts = {name: text for name in named if (text := getattr(found.version, name))}
    table = {"table_version": found.version.table_version} if found.version.table_version >= 0 else {}
    return facts | table | {"made_at": found.made_at.isoformat()}
