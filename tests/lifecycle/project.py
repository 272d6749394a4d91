"""The project folder of the generated shop, the jobs on it in this process, and what its tables hold."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import cli
from catalog_enrichment.audit.review_records import Answer, Verdict
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.registry.model_registry import Registry

from .world import ABSENT_IMPORTS, World

if TYPE_CHECKING:
    from catalog_enrichment.precision.certificate import Certificate

_CONFIG = """
[catalog]
path = "catalog"
dictionary = "attributes.json"
[source]
format = "jsonl"
path = "feed/products.jsonl"
complete = true
absent_imports = ABSENT_IMPORTS
[source.mapping]
product_id = "id"
shop_id = "shop"
title = "title"
category = "category"
opt_out = "opt_out"
updated_at = "updated_at"
deleted = "deleted"
[source.mapping.attributes]
ATTRIBUTES
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
artifact_path = "mlartifacts"
model_name = "shop"
[training]
recipe = "words.toml"
unimodal_baselines = false
label_uses_per_round = 1
threads = 1
[spark.conf]
"spark.sql.shuffle.partitions" = "1"
"spark.sql.codegen.wholeStage" = "false"
"spark.sql.codegen.factoryMode" = "NO_CODEGEN"
"""
_RECIPE = """
name = "words"
[model.text]
pooling = "mean"
max_length = 16
[model.text.bert]
hidden = 64
layers = 1
heads = 2
intermediate = 128
vocab_size = 400
dropout = 0.1
[model.fusion]
kind = "text_only"
[fit]
epochs = 6
batch_size = 16
text_learning_rate = 3e-3
learning_rate = 5e-3
"""


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    code: int
    summary: dict[str, Any]
    printed: str


@dataclass
class Project:
    """The folder with config, dictionary, feed, catalog and model store."""

    folder: Path
    settings: list[str] = field(default_factory=list)
    """Overrides of the config that all jobs get, SECTION.KEY=VALUE."""

    def __post_init__(self) -> None:
        (self.folder / "feed").mkdir(parents=True)
        (self.folder / "words.toml").write_text(_RECIPE)

    @property
    def feed(self) -> Path:
        return self.folder / "feed" / "products.jsonl"

    def write(self, world: World) -> None:
        """Write the dictionary of today, and the config, whose mapping names its attributes."""
        world.words.write(self.folder / "attributes.json")
        mapping = "\n".join(f'{name} = "{name}"' for name in world.words.values)
        config = _CONFIG.replace("ABSENT_IMPORTS", str(ABSENT_IMPORTS)).replace("ATTRIBUTES", mapping)
        (self.folder / "config.toml").write_text(config)

    @cached_property
    def registry(self) -> Registry:
        return Registry(load_config(self.folder / "config.toml"))

    def run(self, job: str, *arguments: str) -> Ended:
        """Run a job in this process, in its Spark session if it has one."""
        options = ["--config", str(self.folder / "config.toml")]
        options += [word for setting in self.settings for word in ("--set", setting)]
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = getattr(cli, job)([*options, *arguments])
        printed = out.getvalue()
        return Ended(code, json.loads(printed.splitlines()[-1]), printed)

    def table(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a table; none where there is no such table yet."""
        catalog = Catalog(self.folder / "catalog")
        if catalog.version(name) < 0:
            return []
        return [row for batch in catalog.scan(name) for row in batch.to_pylist()]

    def commits(self, name: str) -> list[str]:
        """Return the run of every commit to a table, in order: the transaction ids in its log."""
        entries = sorted((self.folder / "catalog" / name / "_delta_log").glob("*.json"))
        actions = [json.loads(line) for entry in entries for line in entry.read_text().splitlines()]
        return [action["txn"]["appId"] for action in actions if "txn" in action]

    def certificates(self, version: str) -> dict[str, Certificate]:
        """Return the certificates of a model version by id."""
        if version not in self._certificates:
            model = self.registry.resolve(version=version)
            self._certificates[version] = {known.certificate_id: known for known in model.certificates}
        return self._certificates[version]

    @cached_property
    def _certificates(self) -> dict[str, dict[str, Certificate]]:
        return {}

    def judge(self, sample_id: str, world: World) -> int:
        """Answer the questions of a sample as people who know the truth; return the number of wrong values."""
        wrong = 0
        with ReviewStore(self.folder / "review.sqlite") as store:
            for item in store.items(sample_id):
                right = world.true_value(item.product_id, item.attribute)
                answer = Answer.YES if item.value == right else Answer.OTHER if right else Answer.NO
                wrong += answer is not Answer.YES
                said = (right,) if right and answer is Answer.OTHER else ()
                now = datetime.now(UTC)
                verdict = {"item_id": item.item_id, "reviewer": "Ann", "answer": answer, "right_values": said}
                store.add_verdict(Verdict(**verdict, answered_at=now, seconds=2.0))
        return wrong
