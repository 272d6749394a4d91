"""Real listings, end to end: import, train on the labelled, promote, enrich the others, score what was written.

    python tests/benchmarks/fashion.py --config config:fashion.toml --data FILE.parquet [--set section.key=value ...]

With ``--compare``: fit the models of the config's [compare] on the labelled, score all of them on the others, and print
the tables with intervals; ``--also FILE`` evaluates on that file's products, too. The reference of every table is a
logistic regression over TF-IDF of the title and a colour histogram, fitted to the same labels.

A twin is an unlabelled product that shares its full title with a labelled product; precision is given with and without
twins.

No other code may read the truth of the products that are not labelled; do not tune anything by what this prints. Start
from an empty catalog, or old runs are scored too. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from benchmark import JOBS, STAGES, arguments, markdown, print_json
from scipy import stats

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision import classification_metrics
from catalog_enrichment.records import Source, stable_hash
from catalog_enrichment.values.spelling import fold

if TYPE_CHECKING:
    from catalog_enrichment.comparison.compared_models import FittedModels
    from catalog_enrichment.comparison.tables import Comparison
    from catalog_enrichment.training.labels import Labels

Values = frozenset[str]


@dataclass(frozen=True)
class Truth:
    """The true values of the products that are not labelled."""

    values: dict[str, dict[str, Values]]
    """Attribute -> product id -> values; products that are not labelled, where the value is known."""
    twins: set[str]
    """Products that are not labelled and share their full title with a labelled product."""


@dataclass(frozen=True)
class CatalogContent:
    """The content of the catalog after the run."""

    merchant: dict[str, set[str]]
    """Attribute -> products with a merchant's value."""
    written: dict[str, dict[str, Values]]
    """Attribute -> product id -> the model's values."""
    top: dict[str, dict[str, tuple[str, float]]]
    """Attribute -> product id -> best value and its score."""
    categories: dict[str, str | None]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", required=True, type=Path, help="parquet with labelled, full_title and the attributes")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--compare", action="store_true", help="score the models of [compare] instead of the catalog")
    parser.add_argument("--also", type=Path, help="parquet file whose products are also evaluated separately")
    args = parser.parse_args()
    overrides = [f"source.path={json.dumps(str(args.data.resolve()))}", *args.set]
    config = load_config(args.config, overrides)
    if args.compare:
        return compare(args, config, overrides)
    summaries, seconds = run_jobs(args.config, overrides)
    truth, content = read_truth(args.data, config), read_catalog(config)
    dictionary, trained = load_dictionary(config), summaries["train_model"]
    attributes = {
        name: score(dictionary[name], truth, content) | reported(name, trained)
        for name in truth.values
        if name in content.top
    }
    products = len(content.categories)
    rates = {stage: round(products / spent, 1) for stage, spent in seconds.items()}
    print_table(attributes, seconds, rates)
    result = {"products": products, "attributes": attributes, "seconds": seconds, "products_per_second": rates}
    print_json(result | {"model_version": trained["model_version"], "ok": none_below_target(attributes)})
    return 0 if none_below_target(attributes) else 3


def compare(args: argparse.Namespace, config: Config, overrides: list[str]) -> int:
    """Evaluate every model of [compare] and the reference on the products that are not labelled."""
    from catalog_enrichment.comparison.comparison_page import text_table, write_comparison

    if Catalog.of(config).version("products") < 0:
        run_jobs(args.config, overrides, ("import_products",))
    truth = read_truth(args.data, config)
    subsets: dict[str, set[str] | None] = {"unlabelled": None}
    if args.also:
        subsets[args.also.stem] = set(map(str, pq.read_table(args.also, columns=["product_id"])[0].to_pylist()))
    comparisons, fitted = compare_on_unlabelled(config, truth.values, subsets)
    for name, comparison in comparisons.items():
        about = {"judged on": f"products that are not labelled: {name}", **fitted.lineage}
        html, _ = write_comparison(config.path(config.report.path) / f"comparison_{name}", comparison, about)
        print(f"\n=== {name}: {html}\n")
        for table in comparison.tables:
            text = text_table(table)
            lines = (" | ".join(row) for row in [text.headings, *text.rows])
            print("\n  ".join([text.title, *lines]))
    print_json({name: comparison.summary for name, comparison in comparisons.items()})
    return 0


def compare_on_unlabelled(
    config: Config, truth: Mapping[str, Mapping[str, Values]], subsets: Mapping[str, Set[str] | None]
) -> tuple[dict[str, Comparison], FittedModels]:
    """Fit every model once; return a comparison per subset of the unlabelled products (None: all of them).

    ``truth``: attribute -> product id -> values. Values that the models did not learn stay in every denominator.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # read when torch is loaded
    from catalog_enrichment.comparison.compared_models import compare_settings
    from catalog_enrichment.comparison.fit_all import CatalogProducts, fit_all, load_data, with_picture
    from catalog_enrichment.comparison.tables import build_comparison

    catalog = Catalog.of(config)
    with tempfile.TemporaryDirectory() as folder:
        workdir, stages = Path(folder), Stages()
        data = load_data(
            CatalogProducts(lambda: catalog.scan("products")), load_dictionary(config), config, workdir, stages
        )
        labelled = np.concatenate(
            [index for _, index in data.split.folds.items()]
        )  # the folds have all labelled products
        others = np.setdiff1d(np.arange(len(data.split.dataset)), labelled).astype(np.int64)
        unlabelled = with_picture(data.split, others)
        fitted = fit_all(replace(data, evaluation_index=unlabelled), config, workdir, stages)
    comparisons = {}
    for name, members in subsets.items():
        labels = {
            attribute: _labels_from_truth(learned, truth[attribute], data.split.dataset.ids, members)
            for attribute, learned in fitted.labels.items()
        }
        has_truth = np.any([label.labelled for label in labels.values()], axis=0)
        index = fitted.evaluation_index[has_truth[fitted.evaluation_index]]
        with_truth = replace(fitted, labels=labels, evaluation_index=index)
        comparisons[name] = build_comparison(with_truth, compare_settings(config))
    return comparisons, fitted


def _labels_from_truth(
    learned: Labels, truth: Mapping[str, Values], ids: Sequence[str], members: Set[str] | None
) -> Labels:
    """Return the labels of an attribute with the values of ``truth``, for ``members`` only (None: for all)."""
    column = {value: number for number, value in enumerate(learned.values)}
    true_values = np.zeros_like(learned.truth)
    unlearned = np.zeros_like(learned.unlearned)
    for product, product_id in enumerate(ids):
        if members is not None and product_id not in members:
            continue
        for value in truth.get(product_id, ()):
            if value in column:
                true_values[product, column[value]] = True
            else:
                unlearned[product] += 1
    labelled = true_values.any(axis=1) | (unlearned > 0)
    return replace(learned, truth=true_values, unlearned=unlearned, labelled=labelled)


def run_jobs(
    config: str, overrides: list[str], stages: Iterable[str] = STAGES
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Run the jobs as a user would; return the summary (last line of stdout) and the seconds of each."""
    settings = [part for override in overrides for part in ("--set", override)]
    summaries, seconds = {}, {}
    for stage in stages:
        start = time.perf_counter()
        command = [sys.executable, str(JOBS / f"{stage}.py"), "--config", config, *settings]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{stage} ended with {done.returncode}: {done.stdout[-2000:]}")
        summaries[stage] = json.loads(done.stdout.strip().splitlines()[-1])
        seconds[stage] = round(time.perf_counter() - start, 1)
    return summaries, seconds


def read_truth(data: Path, config: Config) -> Truth:
    if config.source is None:
        sys.exit("the config has no [source] section")
    mapping, dictionary = config.source.mapping, load_dictionary(config)
    columns = [mapping.product_id, "full_title", "labelled", *mapping.attributes.values()]
    rows = pq.read_table(data, columns=columns).to_pylist()
    others = [row for row in rows if not row["labelled"]]
    titles = {row["full_title"] for row in rows if row["labelled"]}
    values = {
        name: {
            str(row[mapping.product_id]): _normalised(dictionary[name], row[column])
            for row in others
            if row[column] is not None
        }
        for name, column in mapping.attributes.items()
    }
    return Truth(values, {str(row[mapping.product_id]) for row in others if row["full_title"] in titles})


def write_part(data: Path, target: Path, products: int) -> Path:
    """Write the ``products`` listings with the smallest hash of the id to ``target``, and return it. As in ``data``
    nothing but this program may read the truth of listings that are not labelled."""
    rows = pq.read_table(data)
    order = np.argsort([stable_hash("part", str(product_id)) for product_id in rows["product_id"].to_pylist()])
    pq.write_table(rows.take(np.sort(order[:products])), target)
    return target


def _normalised(attribute: Attribute, raw: str | list[str]) -> Values:
    """Return as the import does the canonical value of a spelling in the dictionary, else the value as it is."""
    raw_values = [raw] if isinstance(raw, str) else raw
    spellings = attribute.spellings()
    return frozenset(spellings.get(fold(value), value) for value in raw_values)


def read_catalog(config: Config) -> CatalogContent:
    catalog = Catalog.of(config)
    content = CatalogContent({}, {}, {}, {})
    for row in _rows(catalog, "products", "product_id", "category"):
        content.categories[row["product_id"]] = row["category"]
    for row in _rows(catalog, "current_values", "product_id", "attribute", "values", "source"):
        if row["source"] == Source.MERCHANT.value:
            content.merchant.setdefault(row["attribute"], set()).add(row["product_id"])
        elif row["source"] == Source.MODEL.value:
            content.written.setdefault(row["attribute"], {})[row["product_id"]] = frozenset(row["values"])
    for row in _rows(catalog, "predictions", "product_id", "attribute", "value", "rank", "score"):
        if row["rank"] == 1:
            content.top.setdefault(row["attribute"], {})[row["product_id"]] = (row["value"], row["score"])
    return content


def _rows(catalog: Catalog, table: str, *columns: str) -> Iterable[dict[str, Any]]:
    for batch in catalog.scan(table, columns):
        yield from batch.to_pylist()


def score(attribute: Attribute, truth: Truth, content: CatalogContent) -> dict[str, Any]:
    """Compare the written values and predictions of an attribute with the truth."""
    name = attribute.name
    known, written, top = truth.values[name], content.written.get(name, {}), content.top.get(name, {})
    compared = {product: values for product, values in written.items() if product in known}
    wrong = {product for product, values in compared.items() if not values <= known[product]}
    applicable = {product for product, category in content.categories.items() if attribute.applies_to(category)}
    before = content.merchant.get(name, set()) & applicable
    after = before | (set(written) & applicable)
    return {
        **_written(len(compared), len(wrong)),
        "written_without_truth": len(written) - len(compared),
        "coverage_before": round(len(before) / len(applicable), 4),
        "coverage_after": round(len(after) / len(applicable), 4),
        **_predicted(known, top),
        "near_duplicate_rate": round(len(truth.twins & set(known)) / max(len(known), 1), 4),
        "twins": _written(len(truth.twins & set(compared)), len(truth.twins & wrong)),
        "without_twins": _written(len(set(compared) - truth.twins), len(wrong - truth.twins)),
    }


def _written(n: int, k: int) -> dict[str, Any]:
    """Return N written, K of them wrong, with the 95% interval and the test of a precision of at least 95%."""
    low, high = stats.binomtest(n - k, n).proportion_ci() if n else (0.0, 1.0)  # Clopper and Pearson
    return {
        "written": n,
        "wrong": k,
        "precision": round((n - k) / n, 4) if n else None,
        "interval": [round(low, 4), round(high, 4)],
        "p_at_least_95": round(float(stats.binom.sf(k - 1, n, 0.05)), 4),
    }


def _predicted(known: dict[str, Values], top: dict[str, tuple[str, float]]) -> dict[str, float]:
    """Return accuracy, macro-F1 and R@P95 of the top values; a product without a prediction is a miss."""
    products = sorted(known)
    labels = sorted({value for values in known.values() for value in values} | {value for value, _ in top.values()})
    column = {label: number for number, label in enumerate(labels)}
    true, predicted = (np.zeros((len(products), len(labels)), dtype=bool) for _ in range(2))
    scores, correct = [], []
    for number, product in enumerate(products):
        true[number, [column[value] for value in known[product]]] = True
        if product in top:
            value, probability = top[product]
            predicted[number, column[value]] = True
            scores.append(probability)
            correct.append(value in known[product])
    point = classification_metrics.operating_point(scores, correct, int(true.sum()), 0.95)
    f1 = classification_metrics.f1(predicted, true)
    return {
        "unlabelled": len(products),
        "accuracy": round(sum(correct) / max(len(products), 1), 4),
        "f1_macro": round(f1.macro, 4),
        "r_at_p95_micro": round(point.recall, 4),
    }


def reported(name: str, trained: dict[str, Any]) -> dict[str, Any]:
    """Return the model's own metrics on its test fold, and why an attribute abstains, by modality."""
    metrics = trained["metrics"]
    keys = {
        "f1_macro": "f1_macro", "r_at_p95_both": "r_at_p95_micro", "r_at_p95_text_only": "text_only/r_at_p95_micro",
        "r_at_p95_image_only": "image_only/r_at_p95_micro", "certified_recall": "certified_recall",
    }  # fmt: skip
    known = {short: metrics.get(f"{name}/{key}") for short, key in keys.items()}
    certificates = [certificate for certificate in trained["certificates"] if certificate["attribute"] == name]
    return {
        "test": {short: None if value is None else round(value, 4) for short, value in known.items()},
        "abstains": {c["modality"]: c["why_abstains"] for c in certificates if c["why_abstains"]},
    }


def none_below_target(attributes: dict[str, dict[str, Any]]) -> bool:
    """True if something was written and no attribute's precision is significantly below 95%."""
    return any(row["written"] for row in attributes.values()) and all(
        row["p_at_least_95"] >= 0.05 for row in attributes.values()
    )


def print_table(attributes: dict[str, dict[str, Any]], seconds: dict[str, float], rates: dict[str, float]) -> None:
    columns = ["written", "wrong", "precision [95%]", "p", "coverage", "twins", "accuracy", "F1", "R@P95"]
    columns += [f"own test: {name}" for name in ("F1", "R@P95 both", "R@P95 text", "R@P95 image", "certified recall")]
    rows = {}
    for name, row in attributes.items():
        low, high = row["interval"]
        without = row["without_twins"]
        rows[name] = [
            *(row["written"], row["wrong"], f"{row['precision']} [{low:.3f}, {high:.3f}]", row["p_at_least_95"]),
            f"{row['coverage_before']:.1%} > {row['coverage_after']:.1%}",
            f"{row['near_duplicate_rate']:.0%}; without: {without['wrong']} of {without['written']} wrong",
            *(row["accuracy"], row["f1_macro"], row["r_at_p95_micro"], *row["test"].values()),
        ]
    print("\n".join(markdown(columns, rows, "attribute")))
    for name, row in attributes.items():
        for modality, why in row["abstains"].items():
            print(f"{name} writes nothing on the path {modality}: {why}")
    print("\n" + "  ".join(f"{stage} {spent} s ({rates[stage]}/s)" for stage, spent in seconds.items()))


if __name__ == "__main__":
    sys.exit(main())
