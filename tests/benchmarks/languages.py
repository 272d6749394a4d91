"""Recall at 95% precision in five languages: the same generated products, the text alone.

    python tests/benchmarks/languages.py                         (two recipes, five languages; hours on a core)
    python tests/benchmarks/languages.py --languages en de --recipes default --train 200 --test 100       (a try)

The products of the demo's marketplace are generated with the same seed in every language: the same values, the same
merchants' errors, the same labels, translated texts. A recipe is fitted, text only, to the merchants' values of the
first products, with the settings that init_project writes, and evaluated by the truth of the last products. Besides:

    ceiling      share of the evaluated values that the text names; nothing but chance can find the others
    reference    logistic regression over TF-IDF of words, and of groups of 2 to 4 letters where there are no spaces
    unseen       recall of values that are named by a word which no training product has: every colour has three words,
                 every material two, and with --unseen the last of them is taken out of the training products

``--train`` is the number of products before the labels are drawn; merchants give about 60% of the values. Prints a
table and, last, one JSON line.
"""

from __future__ import annotations

import random
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from benchmark import arguments, markdown, print_json

from catalog_enrichment import contract, dictionary, resources
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.demo import marketplace
from catalog_enrichment.demo.vocabulary import LANGUAGES
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.models.text_encoders import build_tokenizer
from catalog_enrichment.precision import classification_metrics as metrics
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import fit
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset
from catalog_enrichment.training.evaluation import attribute_metrics
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Folds
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.scoring import score, scorer_of
from catalog_enrichment.training.task import Task

ATTRIBUTES = ("color", "material")
TOKENS = {"default": 64, "default_multilingual": 96}
"""Recipe -> tokens of title and description, as init_project sets them."""
CHOOSING = 0.15
SEED = 11


@dataclass(frozen=True)
class World:
    """Generated products in a language."""

    rows: list[dict[str, Any]]
    truth: list[dict[str, tuple[str, ...]]]
    """Attribute -> values of each product."""
    named: dict[str, np.ndarray]
    """Attribute -> (N,): the text names the attribute."""
    last_word: dict[str, np.ndarray]
    """Attribute -> (N,): it does so with the last of the value's words."""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=list(LANGUAGES))
    parser.add_argument("--recipes", nargs="*", default=list(TOKENS), choices=list(TOKENS))
    parser.add_argument(
        "--train", type=int, default=1500, help="products to fit on, a sixth of them to choose the epoch"
    )
    parser.add_argument("--test", type=int, default=2000, help="products to evaluate on")
    parser.add_argument("--unseen", action="store_true", help="keep the last word of every value out of the training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the fits")
    parser.add_argument("--precision", default="auto", choices=["fp32", "auto"], help="of the fits")
    args = parser.parse_args()
    fit.set_threads(args.threads)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for language in args.languages:
        world = world_of(language, args.train + args.test)
        train = np.arange(args.train)
        if args.unseen:
            seen = ~np.any([world.last_word[name][train] for name in ATTRIBUTES], axis=0)
            train = train[seen]
        test = np.arange(args.train, args.train + args.test)
        with tempfile.TemporaryDirectory() as folder:
            dataset = dataset_of(world, args.train, Path(folder))
            figures[language] = {"ceiling": ceiling(world, test), "reference": reference(dataset, world, train, test)}
            for name in args.recipes:
                figures[language][name] = of_recipe(name, dataset, world, train, test, args)
                print(language, name, figures[language][name], flush=True)
    print_tables(figures)
    print_json(
        {"train": args.train, "test": args.test, "unseen": args.unseen, "seed": args.seed, "precision": args.precision}
        | figures
    )
    return 0


def world_of(language: str, count: int) -> World:
    """Return ``count`` products; those of other languages differ in the words only."""
    words = LANGUAGES[language]
    listings = list(marketplace._listings(count, random.Random(SEED)))
    rows = [marketplace._row(listing, language, random.Random(f"{SEED}-{listing.product_id}")) for listing in listings]
    truth = [{"color": (listing.color,), "material": tuple(sorted(listing.materials))} for listing in listings]
    named = {
        "color": np.array([listing.color_shown.text for listing in listings]),
        "material": np.array([listing.material_shown.text for listing in listings]),
    }
    last: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for listing in listings:
        draws = random.Random(listing.wording)  # as the marketplace draws the words
        last["color"].append(listing.color_shown.text and draws.randrange(3) == 2)
        chosen = [
            draws.choice(words.materials[material]) == words.materials[material][1] for material in listing.materials
        ]
        last["material"].append(listing.material_shown.text and any(chosen))
    return World(rows, truth, named, {name: np.array(of) for name, of in last.items()})


def dataset_of(world: World, train: int, workdir: Path) -> Dataset:
    """Return the products; labelled by merchants where they are to fit on, by the truth where they are evaluated."""
    attributes = shipped()
    rows = []
    for number, (row, truth) in enumerate(zip(world.rows, world.truth, strict=True)):
        values = merchant_values(row, attributes) if number < train else {name: truth[name] for name in ATTRIBUTES}
        rows.append({
            "product_id": str(number), "title": row["title"], "description": row["description"], "category": "",
            "language": row["language"], "updated_at": datetime(2026, 1, 1, tzinfo=UTC), "opt_out": False,
            "merchant_attributes": [(name, list(given)) for name, given in values.items()], "images": [],
        })  # fmt: skip
    options = LoadOptions(
        attributes=list(ATTRIBUTES),
        square=load_model_recipe("recipes:default.toml").model.image.square,  # type: ignore[union-attr]
        max_chars=2000,
        images=ImagesConfig(),
        workdir=workdir,
        max_unlabelled=len(rows),
    )
    products = pa.RecordBatch.from_pylist(rows, schema=contract.arrow_schema("products"))
    return load_dataset([products], attributes, options)


def shipped() -> Dictionary:
    return dictionary.load(resources.locate("schemas:attributes/demo.v1.json"))


def merchant_values(row: Mapping[str, Any], attributes: Dictionary) -> dict[str, tuple[str, ...]]:
    """Return the merchant's values as an import stores them: canonical where the dictionary knows them."""
    found = {}
    for name in ATTRIBUTES:
        given = row[name] if isinstance(row[name], list) else [row[name]] if row[name] else []
        if given:
            found[name] = tuple(attributes[name].canonical(text, row["language"]) or text for text in given)
    return found


def of_recipe(
    name: str, dataset: Dataset, world: World, train: np.ndarray, test: np.ndarray, args: Namespace
) -> dict[str, float]:
    """Fit a recipe to the text alone; return R@P95 by attribute, recall of the last words, and seconds."""
    changes = {"model.fusion.kind": "text_only", "model.text.max_length": TOKENS[name]}
    recipe = load_model_recipe(f"recipes:{name}.toml", changes)
    assert isinstance(recipe, Recipe)
    assert recipe.text is not None
    changed = {"seed": args.seed, "precision": args.precision}
    recipe = replace(recipe, text=replace(recipe.text, **changed), fit=replace(recipe.fit, **changed))
    tokenizers = {"text": build_tokenizer(recipe.model.text, dataset.titles)}
    examples = Examples.of(dataset, recipe.model, tokenizers)
    none = test[:0]
    choosing = train[:: round(1 / CHOOSING)]
    folds = Folds(np.setdiff1d(train, choosing), choosing, none, test)
    labels = {attribute: dataset.labels(attribute) for attribute in ATTRIBUTES}
    task = Task(examples, tokenizers, labels, folds, np.arange(len(dataset)))
    started = time.perf_counter()
    fitted = fit.fit(recipe, task, lambda line: print(f"  {line}", flush=True))
    seconds = time.perf_counter() - started
    scores = score(scorer_of(fitted, task, recipe), dataset, test, lambda _line: None)
    probabilities = {attribute: scores.at(attribute, test) for attribute in ATTRIBUTES}
    return measured(probabilities, labels, world, test) | {"seconds": round(seconds, 1)}


def measured(
    probabilities: Mapping[str, np.ndarray], labels: Mapping[str, Labels], world: World, test: np.ndarray
) -> dict[str, float]:
    figures = {}
    for name in ATTRIBUTES:
        of_all = attribute_metrics(probabilities[name], labels[name], test)
        figures[name] = round(100 * of_all["r_at_p95_micro"], 1)
        last = world.last_word[name][test]
        predicted = metrics.predictions(probabilities[name], labels[name].cardinality)[last]
        truth = labels[name].truth[test][last]
        figures[f"{name}_last_words"] = round(100 * float((predicted & truth).sum() / max(1, truth.sum())), 1)
    return figures


def ceiling(world: World, test: np.ndarray) -> dict[str, float]:
    """Return the share of the values that the text names. A text that shows materials names all of them, but for a
    title, which names one."""
    figures = {}
    for name in ATTRIBUTES:
        sizes = np.array([len(world.truth[number][name]) for number in test])
        figures[name] = round(100 * float((sizes * world.named[name][test]).sum() / sizes.sum()), 1)
    return figures


def reference(dataset: Dataset, world: World, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_union

    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, sublinear_tf=True)
    union = make_union(TfidfVectorizer(min_df=2, sublinear_tf=True), letters)
    texts = [f"{title} . {text}" for title, text in zip(dataset.titles, dataset.descriptions, strict=True)]
    features = union.fit_transform([texts[number] for number in train]), union.transform([texts[n] for n in test])
    probabilities, labels = {}, {}
    for name in ATTRIBUTES:
        labels[name] = dataset.labels(name)
        learn = labels[name].learnable[train]
        truth = labels[name].truth[train][learn]
        single = labels[name].cardinality is Cardinality.ONE
        model = LogisticRegression(C=10, max_iter=1000)
        fitted = (model if single else OneVsRestClassifier(model)).fit(
            features[0][learn], truth.argmax(axis=1) if single else truth
        )
        probabilities[name] = np.zeros((len(test), truth.shape[1]))
        columns = fitted.classes_ if single else range(truth.shape[1])
        probabilities[name][:, columns] = fitted.predict_proba(features[1])
    return measured(probabilities, labels, world, test)


def print_tables(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    languages = list(figures)
    for attribute in ATTRIBUTES:
        for suffix in ("", "_last_words"):
            rows: dict[str, Sequence[object]] = {
                model: [figures[language][model].get(attribute + suffix) for language in languages]
                for model in next(iter(figures.values()))
            }
            print("\n".join(markdown(languages, rows, (attribute + suffix).replace("_", " "))), "\n")


if __name__ == "__main__":
    raise SystemExit(main())
