"""A small catalog and a model that needs no training, for the tests that run whole jobs.

The model has random weights and certificates whose thresholds the test chooses: what it says is nonsense, and always
the same nonsense. What the tests look at is what happens to it.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context, follow_dictionary, load_dictionary
from catalog_enrichment.enrichment import pipeline
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.ingest import job
from catalog_enrichment.precision.certificate import Certificate, ScoredBy
from catalog_enrichment.records import Modality
from catalog_enrichment.registry.model_registry import Registry, ResolvedModel
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.registry.trained_model import TrainedModel

from . import sample_certificate
from .config_texts import WITH_OWN_DICTIONARY
from .sample_certificate import SCORED_BY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PRODUCTS = 24
DICTIONARY = {
    "attributes": [
        {"name": "color", "cardinality": "one", "values": ["Red", "Green", "Blue"]},
        {"name": "material", "cardinality": "many", "values": ["Cotton", "Wool"], "categories": ["Apparel"]},
    ]
}
CONFIG = f"""{WITH_OWN_DICTIONARY}artifact_path = "mlartifacts"
[source]
format = "jsonl"
path = "feed/products.jsonl"
[source.mapping]
description = "description"
shop_id = "shop"
category = "category"
image_uris = "image"
updated_at = "updated_at"
opt_out = "opt_out"
attributes = {{ color = "color", material = "material" }}
[training]
recipe = "recipes:demo.toml"
[report]
samples = 2
"""


def listing(number: int, **changes: Any) -> dict[str, Any]:
    """A feed row; every third product has a merchant's colour, every seventh is a cushion."""
    day = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    row = {
        "product_id": f"p{number:03d}",
        "shop": f"shop-{number % 2}",
        "title": f"Shirt number {number} red green cotton",
        "description": f"A thing of sort {number % 5}",
        "category": "Home/Textiles" if number % 7 == 0 else "Apparel/Topwear",
        "image": f"{number % 6}.jpg",
        "updated_at": day.isoformat(),
        "opt_out": False,
        "color": ("Red", "Green", "Blue")[(number // 3 + 2) % 3] if number % 3 == 0 else None,
        "material": None,
    }
    return row | changes


@dataclass(frozen=True)
class SampleCatalog:
    folder: Path
    config: Config
    spark: SparkSession | None

    @property
    def file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def registry(self) -> Registry:
        return Registry(self.config)

    @property
    def promotion(self) -> Promotion:
        return Promotion(self.registry)

    def context(self) -> Context:
        catalog = Catalog(self.config.path("catalog"), self.spark)
        assert self.spark is not None
        return Context(self.config, self.spark, catalog, follow_dictionary(self.config, catalog).dictionary)

    def with_settings(self, *overrides: str) -> SampleCatalog:
        return replace(self, config=load_config(self.file, list(overrides)))

    def copy_to(self, folder: Path) -> SampleCatalog:
        """A copy to change."""
        shutil.copytree(self.folder, folder)
        return SampleCatalog(folder, load_config(folder / "config.toml"), self.spark)

    def feed(self, rows: Sequence[dict[str, Any] | str]) -> None:
        """Write the feed; a string is written as it is, as a line."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / "feed" / "products.jsonl").write_text("\n".join(lines) + "\n")

    def import_products(self) -> dict[str, Any]:
        return job.import_products(self.context())

    def model(self) -> ResolvedModel:
        return self.registry.resolve()


def build(folder: Path, spark: SparkSession | None = None) -> SampleCatalog:
    """A folder with config, dictionary and pictures; no products and no model yet."""
    (folder / "feed").mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    (folder / "attributes.json").write_text(json.dumps(DICTIONARY))
    for number in range(6):
        (folder / "feed" / f"{number}.jpg").write_bytes(jpeg((40 * number, 255 - 40 * number, 90)))
    return SampleCatalog(folder, load_config(folder / "config.toml"), spark)


def jpeg(color: tuple[int, int, int], size: int = 40) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (size, size), color).save(sink, format="JPEG")
    return sink.getvalue()


def random_artifact(sample: SampleCatalog, folder: Path, seed: int) -> Path:
    """The folder of a model with random weights and a head per attribute; without certificates."""
    import torch

    from catalog_enrichment.inputs.text import TextTokenizer
    from catalog_enrichment.models import artifact
    from catalog_enrichment.models.network import Head, build_network
    from catalog_enrichment.models.spec import BertSize, FitSpec, ImageSpec, ModelSpec, Recipe, TextSpec

    size = BertSize(hidden=16, layers=1, heads=2, intermediate=16, vocab_size=200)
    tiny = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
    image = ImageSpec(name="vit_tiny_patch16_224", args=tiny, size=32)
    spec = ModelSpec(text=TextSpec(bert=size, pooling="mean", max_length=16), image=image)
    dictionary = load_dictionary(sample.config)
    heads = {name: Head(dictionary[name].cardinality, dictionary[name].values) for name in dictionary.enabled}
    tokenizer = TextTokenizer.train([listing(n)["title"] for n in range(50)], vocab_size=200)
    torch.manual_seed(seed)
    net = build_network(spec, heads, {"text": tokenizer})
    recipe = Recipe(name="random", model=spec, fit=FitSpec(epochs=1))
    artifact.save(folder / f"artifact-{seed}", net, {"text": tokenizer}, recipe, dict.fromkeys(heads, 1.0))
    return folder / f"artifact-{seed}"


def register(
    sample: SampleCatalog,
    folder: Path,
    seed: int = 0,
    thresholds: Mapping[str, float | None] | None = None,
    compute_types: Sequence[str] = (SCORED_BY.compute_type,),
    drift: Sequence[dict[str, Any]] = (),
) -> str:
    """Register a random model that may write everything it has a picture for; returns its version.

    ``thresholds``: attribute -> threshold with a picture, None for an abstention; without it 0. Certified on each of
    the ``compute_types``. ``drift``: the reference for drift checks.
    """
    from catalog_enrichment.models import artifact, version_files

    target = random_artifact(sample, folder, seed)
    names = load_dictionary(sample.config).enabled
    chosen = dict.fromkeys(names, 0.0) | dict(thresholds or {})
    scored_by = replace(
        SCORED_BY,
        weights_hash=artifact.weights_hash(target),
        preprocessing_hash=artifact.preprocessing_hash(target),
    )
    certificates = [
        certificate(
            name, path, chosen[name] if path is Modality.BOTH else None, replace(scored_by, compute_type=compute_type)
        )
        for compute_type in compute_types
        for name in names
        for path in Modality
    ]
    version_files.write_certificates(target, [issued.to_dict() for issued in certificates])
    if drift:
        version_files.write_drift(target, list(drift))
    trained = TrainedModel(
        artifact=target, certificates=certificates, metrics={f"{name}/certified_recall": 0.5 for name in names},
        params={}, tables={}, curves={}, history=[], warnings=[], seconds={}, held_out=[],
        lineage={"label_set_hash": f"labels-{seed}", "labelled": 1},
    )  # fmt: skip
    return sample.registry.register(trained).version


def certificate(name: str, path: Modality, threshold: float | None, scored_by: ScoredBy) -> Certificate:
    now = datetime.now(UTC)
    return sample_certificate.certificate(
        attribute=name,
        modality=path,
        values=tuple(DICTIONARY["attributes"][0 if name == "color" else 1]["values"]),  # type: ignore[arg-type]
        threshold=threshold,
        why_abstains="" if threshold is not None else "chosen so",
        **asdict(scored_by),
        issued_at=now,
        expires_at=now + timedelta(days=90),
        suggest_threshold=None,
        categories=("Apparel/Topwear", "Home/Textiles"),
    )


def values(sample: SampleCatalog, source: str | None = None) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the values that readers see: (product, attribute) -> values, of a source or of all."""
    return {
        (row["product_id"], row["attribute"]): tuple(row["values"])
        for row in table(sample, "current_values")
        if source in (None, row["source"])
    }


def table(sample: SampleCatalog, name: str) -> list[dict[str, Any]]:
    return [row for batch in Catalog(sample.config.path("catalog")).scan(name) for row in batch.to_pylist()]


def jobs_started(spark: SparkSession) -> int:
    """Return how many jobs Spark has started since the session began."""
    return int(spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())


def enrich(sample: SampleCatalog, window: Window | None = None, **options: Any) -> dict[str, Any]:
    return pipeline.enrich(sample.context(), sample.model(), window or Window(), **options)


def run_job(name: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a job in this process, which joins its Spark session; return exit code, summary and all that it printed."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = getattr(cli, name)(list(arguments))
    return code, json.loads(out.getvalue().splitlines()[-1]), out.getvalue()


class KilledError(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


@contextmanager
def killed_at(owner: Any, name: str, unless_label: str = "") -> Iterator[None]:
    """Whatever runs inside dies when it calls ``owner.name``; not where the call is labelled ``unless_label``."""
    original = getattr(owner, name)

    def kill(*arguments: Any, **named: Any) -> Any:
        if unless_label and unless_label in [argument for argument in arguments if isinstance(argument, str)]:
            return original(*arguments, **named)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, kill)
        try:
            yield
        except KilledError:
            return
    pytest.fail(f"nothing called {name}")


def change(sample: SampleCatalog, number: int, **changes: Any) -> None:
    """Import a product anew."""
    sample.feed([listing(number, **changes)])
    sample.with_settings("source.min_volume_ratio=0").import_products()


def ledger_of(sample: SampleCatalog) -> list[tuple[Any, ...]]:
    names = ("product_id", "attribute", "value", "op", "certificate_id")
    return sorted((*(row[name] for name in names), round(row["score"], 4)) for row in table(sample, "attribute_values"))
