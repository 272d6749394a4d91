"""Seconds of a fit: as it was, with a frozen text encoder read once, and with mixed precision as well.

    python tests/benchmarks/training.py --data FILE.parquet      (a file as for make compare; some minutes on 2 cores)
    python tests/benchmarks/training.py --products 64 --rounds 1                                             (a try)

A shipped recipe with all its stages and epochs is fitted to the same products in three ways, in turn in every round:
`before` (fp32; the text encoder runs in every epoch, frozen or not), `read_once` (fp32; what a frozen text encoder
makes of the texts is kept) and `auto` (that, and precision = "auto" in every stage: bf16 where the processor multiplies
it). The labels are drawn at random: only the time counts. Reading, tokenizing and decoding come before. The last line
is one JSON object: variant -> seconds [min, median, max], and `of_before`, the median's share.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from benchmark import arguments, in_turn, print_json
from inference_worlds import read_products

from catalog_enrichment import contract, resources
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.models.text_encoders import build_tokenizer
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import fit
from catalog_enrichment.training.dataset import LoadOptions, load_dataset
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Folds
from catalog_enrichment.training.task import Task

VALUES = tuple(f"value-{number}" for number in range(10))
VARIANTS = {"before": "fp32", "read_once": "fp32", "auto": "auto"}
"""Variant -> precision of every stage."""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="parquet file; without it products are generated")
    parser.add_argument("--recipe", default="recipes:fashion_color.toml")
    parser.add_argument("--products", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    args = parser.parse_args()
    fit.set_threads(args.threads)
    recipe = load_model_recipe(resources.locate(args.recipe))
    if not isinstance(recipe, Recipe):
        parser.error(f"--recipe: {args.recipe} is a vote of several recipes; name a single recipe")
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(recipe, args.data, args.products, Path(folder))
        for number in range(args.rounds):
            for name in in_turn(list(VARIANTS), number):
                seconds[name].append(seconds_of(name, recipe, task))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print_json({
        name: {
            "seconds": [round(second, 1) for second in (min(times), medians[name], max(times))],
            "of_before": round(medians[name] / medians["before"], 2),
        }
        for name, times in seconds.items()
    })  # fmt: skip
    return 0


def seconds_of(variant: str, recipe: Recipe, task: Task) -> float:
    """Fit once; prints the products per second of every stage's last epoch."""
    chosen = with_precision(recipe, VARIANTS[variant])
    with inputs_in_every_epoch() if variant == "before" else nullcontext():
        started = time.perf_counter()
        fitted = fit.fit(chosen, task, lambda _line: None)
        seconds = time.perf_counter() - started
    last = {row["stage"]: round(row["products_per_second"]) for row in fitted.stages}
    print(f"{variant:<10} {seconds:7.1f} s, products/s by stage: {last}", flush=True)
    return seconds


def with_precision(recipe: Recipe, precision: Any) -> Recipe:
    """The recipe with this precision in every stage."""
    stages = {name: getattr(recipe, name) for name in ("text", "image", "fit") if getattr(recipe, name) is not None}
    return replace(recipe, **{name: replace(stage, precision=precision) for name, stage in stages.items()})


@contextmanager
def inputs_in_every_epoch() -> Iterator[None]:
    """A block in which frozen encoders read texts and pictures in every epoch."""
    with mock.patch.object(Examples, "with_frozen_outputs", lambda examples, *_: examples):
        yield


def task_of(recipe: Recipe, data: Path | None, count: int, workdir: Path) -> Task:
    """Return a task of products with random labels of an attribute; a tenth of them is held out."""
    random = np.random.default_rng(0)
    rows = [
        {
            "product_id": str(number), "title": product.title, "description": product.description, "category": "",
            "language": "", "updated_at": datetime(2026, 1, 1, tzinfo=UTC), "opt_out": False,
            "merchant_attributes": [("color", [str(random.choice(VALUES))])], "images": [{"bytes": product.image}],
        }
        for number, product in enumerate(read_products(data, count))
    ]  # fmt: skip
    options = LoadOptions(
        attributes=["color"],
        square=recipe.model.image.square,
        max_chars=recipe.model.max_chars,
        images=ImagesConfig(),
        workdir=workdir,
        max_unlabelled=0,
    )
    color = Attribute(name="color", cardinality=Cardinality.ONE, values=VALUES)
    products = pa.RecordBatch.from_pylist(rows, schema=contract.arrow_schema("products"))
    dataset = load_dataset([products], Dictionary({"color": color}), options)
    order = np.arange(len(dataset))
    held_out, none = order[:: max(2, len(order) // max(1, len(order) // 10))], order[:0]
    folds = Folds(np.setdiff1d(order, held_out), held_out, none, none)
    tokenizers = {name: build_tokenizer(text, dataset.titles) for name, text in recipe.model.texts.items()}
    examples = Examples.of(dataset, recipe.model, tokenizers)
    return Task(examples, tokenizers, {"color": dataset.labels("color")}, folds, order)


if __name__ == "__main__":
    raise SystemExit(main())
