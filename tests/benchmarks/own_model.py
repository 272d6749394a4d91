"""A model that was made elsewhere on real listings: certified, promoted, enriched; as a pyfunc and as a table.

    python tests/benchmarks/own_model.py --data products_80px.parquet [--draws 200] [--fit 20000]

The listings come in two imports. The reference, the logistic regression over TF-IDF and colour histograms of
examples/bring_your_own, is fitted to labelled listings of the first import, and registered between the two. It is
declared honestly (labels first imported before that day), or not at all.

    pyfunc     certified, promoted, enriched: what is written of the unlabelled, and how much of it is right
    table      its answers to all listings, imported: the same certificate, the same values
    folds      the certification on other folds, with the scores as they are, squared, and all 1: whose certificate is
               false by the truth of the unlabelled, which nothing else reads
    leak       the same model, not declared: what the check finds
    overhead   products per second against mlflow.pyfunc.spark_udf on the same listings, in turn

The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmark import JOBS, arguments, in_turn, markdown, print_json
from scipy import stats

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.records import stable_hash

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "examples" / "bring_your_own"))

ATTRIBUTE = "color"
FIRST_SHARE = 0.6
REFERENCE = "reference"


class World:
    """A folder with a catalog, a registry and a config."""

    def __init__(self, folder: Path, data: Path, name: str) -> None:
        self.folder, self.data, self.name = folder, data, name

    def settings(self, **more: Any) -> list[str]:
        given = {
            "root": str(self.folder),
            "catalog.path": "catalog",
            "mlflow.tracking_uri": f"sqlite:///{self.folder}/mlflow.db",
            "mlflow.artifact_path": str(self.folder / "artifacts"),
            "mlflow.model_name": self.name,
            "report.path": str(self.folder / f"reports-{self.name}"),
            "precision.provisional_cap": 1_000_000,
        }
        return [f"{key}={json.dumps(value)}" for key, value in (given | more).items()]

    def config(self, **more: Any) -> Config:
        return load_config("config:fashion.toml", self.settings(**more))

    def run(self, job: str, *arguments: str, ok: Sequence[int] = (0,), **more: Any) -> dict[str, Any]:
        """Run a job as a user would; return its summary."""
        sets = [part for setting in self.settings(**more) for part in ("--set", setting)]
        command = [sys.executable, str(JOBS / f"{job}.py"), "--config", "config:fashion.toml", *sets, *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode not in ok:
            sys.exit(f"{job} ended with {done.returncode}: {done.stderr[-3000:]}")
        print(f"{job}: exit {done.returncode}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        summary: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return summary | {"stderr": done.stderr}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--draws", type=int, default=200, help="divisions into folds")
    parser.add_argument("--fit", type=int, default=20_000, help="labelled listings that the reference is fitted to")
    parser.add_argument("--timed", type=int, default=2_000, help="listings of a timed round")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="own-model-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return measure(folder.resolve(), args.data.resolve(), args.draws, args.fit, args.timed)


def measure(folder: Path, data: Path, draws: int, fit: int, timed: int) -> int:
    listings = pq.read_table(data)
    ids = list(map(str, listings["product_id"].to_pylist()))
    first = np.array([int(stable_hash("first", name)[:8], 16) / 16**8 < FIRST_SHARE for name in ids])
    pq.write_table(listings.filter(pa.array(first)), folder / "first.parquet")
    pq.write_table(listings.filter(pa.array(~first)), folder / "second.parquet")
    world = World(folder, data, "own")
    world.run("import_products", **{"source.path": str(folder / "first.parquet")})
    made = fitted(folder, fit)
    between = datetime.now(UTC).isoformat()
    world.run("import_products", **{"source.path": str(folder / "second.parquet")})
    truth = {
        name: value
        for name, value, labelled in zip(
            ids, listings[ATTRIBUTE].to_pylist(), listings["labelled"].to_pylist(), strict=True
        )
        if not labelled and value is not None
    }
    proposer = {
        "proposer.kind": "pyfunc",
        "proposer.model": made,
        "proposer.allow_code": True,
        "proposer.attributes": [ATTRIBUTE],
        "proposer.batch_rows": 256,
    }
    shutil.copytree(folder / "catalog", folder / "table" / "catalog")

    allowed = proposer | {"proposer.trained_on": between}
    declared = world.run("certify_model", **proposer, **{"proposer.trained_on": between})
    world.run("promote_model", **allowed)
    world.run("enrich_catalog", **allowed)
    values = written(world)
    pyfunc = {"certificates": declared["certificates"], **right(values, truth)}
    unlabelled = int(len(ids) - sum(listings["labelled"].to_pylist()))
    pyfunc["share_of_unlabelled"] = round(pyfunc["written"] / unlabelled, 4)

    hidden_world = World(folder, data, "undeclared")
    hidden = hidden_world.run("certify_model", **proposer, **{"proposer.trained_on": "nothing of this catalog"})
    leak = {c["modality"]: c["why_abstains"] or f"threshold {c['threshold']}" for c in hidden["certificates"]}

    answers = answered(folder, world, made)
    table_world = World(folder / "table", data, "table")
    proposals = {
        "proposals.format": "parquet", "proposals.path": str(answers), "proposals.name": REFERENCE,
        "proposals.version": "1", "proposals.content_hash": "content_hash",
    }  # fmt: skip
    table_world.run("import_proposals", **proposals)
    table_proposer = {
        "proposer.kind": "table", "proposer.name": REFERENCE, "proposer.version": "1",
        "proposer.attributes": [ATTRIBUTE],
    }  # fmt: skip
    certified = table_world.run("certify_model", **table_proposer, **{"proposer.trained_on": between})
    table_world.run("promote_model")
    table_world.run("enrich_catalog")
    keys = ("modality", "threshold", "accepted", "wrong", "lower_bound")
    same = [tuple(c[k] for k in keys) for c in certified["certificates"]] == [
        tuple(c[k] for k in keys) for c in declared["certificates"]
    ]
    table = {"same_certificates": same, "same_values": written(table_world) == values}
    if not same:
        table["certificates"] = certified["certificates"]

    config = table_world.config(**table_proposer, **{"proposer.trained_on": between})
    resampled = folds(config, answers, truth, draws)
    overhead = timed_rounds(folder, world, made, timed, allowed)
    figures = {
        "listings": len(ids), "unlabelled": unlabelled, "pyfunc": pyfunc, "table": table, "undeclared": leak,
        "folds": resampled, "overhead": overhead,
    }  # fmt: skip
    rows = {name: [json.dumps(value)[:300]] for name, value in figures.items()}
    print("\n".join(markdown(["figure"], rows, "what")))
    print_json(figures)
    return 0


def fitted(folder: Path, number: int) -> str:
    """Fit the reference to labelled listings of the first import and register it; return its URI."""
    import sklearn_model

    listings = pq.read_table(folder / "first.parquet").to_pandas()
    listings = listings[listings["labelled"] & listings[ATTRIBUTE].notna()]
    order = np.argsort([stable_hash("fit", str(name)) for name in listings["product_id"]])
    listings = listings.iloc[order[:number]].reset_index(drop=True)
    products = listings[["title", "category", "image"]]
    model = sklearn_model.fit(products, {ATTRIBUTE: listings[ATTRIBUTE].tolist()})
    return sklearn_model.log(model, REFERENCE, f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"))


def written(world: World) -> dict[str, tuple[str, ...]]:
    """Return product id -> the model's values."""
    catalog = Catalog.of(world.config())
    rows = (
        row
        for batch in catalog.scan("current_values", ["product_id", "attribute", "values", "source"])
        for row in batch.to_pylist()
    )
    return {
        row["product_id"]: tuple(row["values"])
        for row in rows
        if row["source"] == "model" and row["attribute"] == ATTRIBUTE
    }


def right(values: Mapping[str, Sequence[str]], truth: Mapping[str, str]) -> dict[str, Any]:
    compared = [set(found) <= {truth[name]} for name, found in values.items() if name in truth]
    n, k = len(compared), compared.count(False)
    low, high = stats.binomtest(n - k, n).proportion_ci() if n else (0.0, 1.0)  # Clopper and Pearson
    return {
        "written": len(values), "with_truth": n, "wrong": k, "precision": round(1 - k / n, 4) if n else None,
        "interval": [round(low, 4), round(high, 4)],
    }  # fmt: skip


def answered(folder: Path, world: World, uri: str) -> Path:
    """Write the model's answers to all products of the catalog, as its batches give them; return the file."""
    import mlflow
    import pandas as pd

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    model = mlflow.pyfunc.load_model(uri)
    catalog, parts = Catalog.of(world.config()), []
    columns = ["product_id", "content_hash", "title", "description", "category", "language", "images"]
    for batch in catalog.scan("products", columns):
        frame = batch.to_pandas()
        pictures = [images[0]["bytes"] if images is not None and len(images) else None for images in frame["images"]]
        if any(picture is None for picture in pictures):
            pictures = stored(world, frame["images"])
        products = frame.drop(columns=["images", "product_id", "content_hash"]).assign(image=pictures)
        found = model.predict(products)
        parts.append(pd.concat([frame[["product_id", "content_hash"]], found], axis=1))
    target = folder / "answers.parquet"
    pd.concat(parts).to_parquet(target)
    return target


def stored(world: World, images: Any) -> list[bytes | None]:
    """Return the bytes of the first usable picture of each product, as a run reads them."""
    from catalog_enrichment.inputs.images import first_usable_of_each
    from catalog_enrichment.inputs.square import Square

    listed = [list(of_product) if of_product is not None else None for of_product in images]
    return [
        picture.data for picture in first_usable_of_each(listed, Square(32), world.config().pictures(), keep_bytes=True)
    ]


def folds(config: Config, answers: Path, truth: Mapping[str, str], draws: int) -> dict[str, Any]:
    """Certify on ``draws`` divisions into folds; return how often what would be written is right less than 95%."""
    from catalog_enrichment.catalog import self_derived
    from catalog_enrichment.context import load_dictionary
    from catalog_enrichment.precision.certificate import ScoredBy
    from catalog_enrichment.precision.units import writable_values
    from catalog_enrichment.records import EarlierUses, LabelUse, Modality
    from catalog_enrichment.training import proposals, seen_products
    from catalog_enrichment.training.alikeness import Populations
    from catalog_enrichment.training.certification import Certifier, EarlierCandidates
    from catalog_enrichment.training.dataset import LoadOptions, load_dataset
    from catalog_enrichment.training.folds import content_groups
    from catalog_enrichment.training.scoring import products_to_score

    settings = proposals.settings_of(config)
    catalog = Catalog.of(config)
    options = LoadOptions(
        attributes=[ATTRIBUTE], square=None, max_chars=4000, images=config.pictures(),
        workdir=Path(tempfile.mkdtemp()), max_unlabelled=settings.max_unlabelled,
    )  # fmt: skip
    dataset = load_dataset(self_derived.scan_products(catalog), load_dictionary(config), options)
    labels = {ATTRIBUTE: dataset.labels(ATTRIBUTE, 0)}
    declared = seen_products.Declaration.of(settings.trained_on, config)
    groups = content_groups(dataset.titles, dataset.pictures, dataset.dictionary.words())
    seen = seen_products.seen(declared, dataset, groups)
    given = pq.read_table(answers).to_pandas().set_index("product_id")
    columns = {value: column for column, value in enumerate(labels[ATTRIBUTE].values)}
    every = np.arange(len(dataset))
    raw = np.zeros((len(dataset), len(columns)))
    for product, name in enumerate(dataset.ids):
        value, score = given.at[name, ATTRIBUTE], given.at[name, f"{ATTRIBUTE}_score"]
        if value in columns:
            raw[product, columns[value]] = score
    vectors = proposals.text_vectors(dataset, every)
    known = np.array([name in truth for name in dataset.ids]) & labels[ATTRIBUTE].unlabelled
    is_right = np.zeros_like(raw, dtype=bool)
    for product in np.flatnonzero(known).tolist():
        if truth[dataset.ids[product]] in columns:
            is_right[product, columns[truth[dataset.ids[product]]]] = True
    variants: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "scores": lambda scores: scores,
        "squared": np.square,
        "all 1": lambda scores: (scores > 0).astype(np.float64),
    }
    found: dict[str, Any] = {}
    for name, change in variants.items():
        precisions, certified = [], 0
        for seed in range(draws):
            own = replace(settings, folds=replace(settings.folds, seed=seed))
            split = proposals.split_of(dataset, labels, own, groups, seen, EarlierUses())
            index = products_to_score(split, labels)
            changed = change(raw[index])
            scores = proposals.ModelScores(index, {ATTRIBUTE: changed}, vectors=vectors[index])
            certifier = Certifier(
                split=split, scores=scores, rule=config.precision,
                scored_by=ScoredBy(weights_hash="w", preprocessing_hash="p", max_image_bytes=1, max_image_pixels=1,
                                   scaled_side=288, compute_type="given"),
                earlier=EarlierCandidates(use_labels=lambda *_: LabelUse(number=1, certification_round=0)),
                issued_at=datetime.now(UTC),
                populations=Populations(split, ~seen, with_heads=False),
            )  # fmt: skip
            certificate = certifier.certify_one(labels[ATTRIBUTE], Modality.BOTH)
            if certificate.threshold is None:
                continue
            certified += 1
            pool = np.array([value in certificate.pool for value in columns])
            target = known & dataset.has_image
            values = writable_values(change(raw[target]), labels[ATTRIBUTE].cardinality, pool, certificate.threshold)
            accepted = values.any(axis=1)
            wrong = (values & ~is_right[target]).any(axis=1)
            if accepted.any():
                precisions.append(1 - wrong.sum() / accepted.sum())
        found[name] = {
            "draws": draws,
            "certified": certified,
            "below_95": int(sum(precision < 0.95 for precision in precisions)),
            "lowest": round(min(precisions), 4) if precisions else None,
            "median": round(float(np.median(precisions)), 4) if precisions else None,
        }
        print(f"folds, {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def timed_rounds(
    folder: Path, world: World, uri: str, number: int, allowed: Mapping[str, Any], rounds: int = 3
) -> dict[str, Any]:
    """Score the same listings through the proposer and through mlflow's spark_udf, in turn; products per second."""
    import mlflow
    from pyspark.sql import functions as F

    from catalog_enrichment.context import open_context
    from catalog_enrichment.inputs.square import Square
    from catalog_enrichment.proposers.protocol import Asked
    from catalog_enrichment.registry.model_registry import Registry

    config = world.config(**allowed)
    context = open_context(config, "own_model")
    registry = Registry(config)
    registry.connect()
    model = registry.resolve()
    products = context.catalog.read("products").orderBy("product_id").limit(number)
    pictures = world.config().pictures()
    del Square
    local = products.toPandas()
    images = stored(world, local["images"])
    frame = local[["product_id", "title", "description", "category", "language", "content_hash"]].assign(image=images)
    spark = context.spark
    schema = (
        "product_id string, title string, description string, category string, language string, "
        "content_hash string, image binary"
    )
    flat = spark.createDataFrame(frame, schema).repartition(2).persist()
    flat.count()
    with_images = flat.withColumn(
        "images", F.array(F.struct(F.col("image").alias("bytes"), F.lit(None).cast("string").alias("uri"),
                                   F.lit(None).cast("string").alias("version")))
    ).drop("image")  # fmt: skip
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    udf = mlflow.pyfunc.spark_udf(spark, uri, result_type=f"{ATTRIBUTE} string, {ATTRIBUTE}_score double")
    inputs = ("title", "description", "category", "language", "image")
    asked = Asked(catalog=context.catalog, images=pictures)

    def ours() -> None:
        model.proposer.propose(with_images, asked).write.format("noop").mode("overwrite").save()

    def theirs() -> None:
        flat.select("product_id", udf(F.struct(*inputs)).alias("found")).write.format("noop").mode("overwrite").save()

    contenders = {"proposer": ours, "spark_udf": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number_of_round in range(rounds + 1):  # the first loads the model
        for name in in_turn(list(contenders), number_of_round):
            start = time.perf_counter()
            contenders[name]()
            if number_of_round:
                seconds[name].append(time.perf_counter() - start)
    rates = {name: round(number / float(np.median(spent)), 1) for name, spent in seconds.items()}
    return {"products_per_second": rates, "relative": round(rates["proposer"] / rates["spark_udf"], 3)}


if __name__ == "__main__":
    sys.exit(main())
