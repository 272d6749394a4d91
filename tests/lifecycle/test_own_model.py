"""Models and answers that were made elsewhere, from import to rollback, by the jobs that a user runs.

The commands are those of docs/bring-your-own-model.md. The answers are a rule's, which stands for a language model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.audit.draws import SampledPopulation
from catalog_enrichment.audit.review_records import Answer

from .. import sample_catalog
from ..audit.reviewers import drawn, ingested, judge
from ..sample_catalog import SampleCatalog, listing, run_job, table, values
from ..training.toy import SYLLABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.audit.review_records import Item

LABELLED, PRODUCTS, ASKED = 500, 900, 870
"""Products with a merchant's colour, of all, and those about which there are answers at first."""

LOOSE = ("precision.target=0.7", "precision.delta=0.2", "precision.suggest_precision=0.5")
"""Settings by which few verdicts certify."""

COLORS = ("Red", "Green", "Blue")
CONFIG = """
[proposals]
format = "jsonl"
path = "answers"
name = "rule"
version = "1"
content_hash = "content_hash"
[proposals.answers]
json_column = "answer"

[proposer]
kind = "table"
name = "rule"
version = "1"
trained_on = "nothing of this catalog"
"""

MODEL = """
import mlflow
import pandas as pd


class Rule(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        words = model_input["title"].str.split().str[1]
        scores = [0.97 if len(title) % 2 else 0.99 for title in model_input["title"]]
        return pd.DataFrame({"color": words.tolist(), "color_score": scores})


mlflow.models.set_model(Rule())
"""


def color(number: int) -> str:
    return COLORS[number % 3]


def product(number: int, **changes: Any) -> dict[str, Any]:
    """A feed row whose title names the colour; no picture and no material."""
    given = color(number) if number < LABELLED else None
    brand = "".join(SYLLABLES[int(digit)] for digit in f"{number * 7919 % 100_003:05d}")  # digits make no difference
    title = f"Shirt {color(number).lower()} {brand}"
    return listing(number, title=title, image=None, category="Apparel", color=given) | changes


def answer(row: Mapping[str, Any], number: int) -> dict[str, str]:
    """What a language model says about a product of the catalog."""
    score = 0.97 if len(row["title"]) % 2 else 0.99
    said = {"color": {"value": color(number).lower(), "score": score, "evidence": "title: " + row["title"][:12]}}
    said["material"] = {"value": "cotton", "score": 0.9} if number % 4 else {"value": "wool", "score": 0.6}
    text = f"Here is the JSON:\n```json\n{json.dumps(said)}\n```\nIs there anything else?"
    return {"product_id": row["product_id"], "content_hash": row["content_hash"], "answer": text}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> SampleCatalog:
    """Imported products, and answers about the first of them."""
    empty = sample_catalog.build(tmp_path_factory.mktemp("own") / "sample", spark)
    empty.file.write_text(empty.file.read_text() + CONFIG)
    own = SampleCatalog(empty.folder, empty.with_settings().config, spark)
    own.feed([product(number) for number in range(PRODUCTS)])
    own.import_products()
    answers(own, range(ASKED))
    return own


def answers(sample: SampleCatalog, numbers: range) -> dict[str, Any]:
    """Import the answers about these products."""
    folder = sample.folder / "answers"
    folder.mkdir(exist_ok=True)
    rows = {int(row["product_id"][1:]): row for row in table(sample, "products")}
    lines = [json.dumps(answer(rows[number], number)) for number in numbers]
    (folder / f"{numbers.start}.jsonl").write_text("\n".join(lines) + "\n")
    return ran(sample, "import_proposals")


def ran(sample: SampleCatalog, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    exit_code, summary, printed = run_job(name, "--config", str(sample.file), *arguments)
    assert exit_code == code, printed
    return summary | {"printed": printed}


def of_model(sample: SampleCatalog, attribute: str = "color") -> dict[int, tuple[str, ...]]:
    return {int(name[1:]): found for (name, about), found in values(sample, "model").items() if about == attribute}


def newest(sample: SampleCatalog, number: int, attribute: str = "color") -> dict[str, Any]:
    """The newest decision about a product."""
    rows = [row for row in table(sample, "predictions") if row["product_id"] == f"p{number:03d}"]
    finished = {row["run_id"]: row["finished_at"] for row in table(sample, "runs") if row["finished_at"]}
    return max((row for row in rows if row["attribute"] == attribute), key=lambda row: finished[row["run_id"]])


@pytest.mark.slow
def test_answers_of_a_language_model_are_certified_written_and_rolled_back(
    sample: SampleCatalog, tmp_path: Path
) -> None:
    own = sample.copy_to(tmp_path / "sample")
    certified = ran(own, "certify_model")
    assert certified["proposer"] == "answers of rule 1"
    by_path = {(each["attribute"], each["modality"]): each for each in certified["certificates"]}
    assert by_path["color", "text_only"]["threshold"] is not None, by_path["color", "text_only"]["why_abstains"]
    assert by_path["color", "text_only"]["compute_type"] == "given"
    assert by_path["material", "text_only"]["threshold"] is None
    assert Path(certified["report"]).is_file()
    diff = ran(own, "promote_model", "--dry-run")
    assert diff["diff"]
    ran(own, "promote_model")

    run = ran(own, "enrich_catalog")
    written = of_model(own)
    assert written == {number: (color(number),) for number in range(LABELLED, ASKED)}
    assert newest(own, ASKED)["reason"] == "no_answer"
    assert ran(own, "enrich_catalog")["status"] == "nothing_to_do"
    explained = ran(own, "explain_value", "--product-id", f"p{LABELLED}", "--attribute", "color")
    assert "(answers of rule 1) proposed" in explained["printed"]
    evidence = f"title: {product(LABELLED)['title'][:12]}"
    assert f"evidence: {evidence}" in explained["printed"]
    assert f'The model gives as evidence "{evidence}".' in explained["printed"]
    assert {told["evidence"] for told in explained["evidence"]} == {evidence}

    # answers that come later belong to the same version
    answers(own, range(ASKED, PRODUCTS))
    ran(own, "enrich_catalog")
    assert of_model(own) == {number: (color(number),) for number in range(LABELLED, PRODUCTS)}

    # an answer about the content before is stale
    own.feed([product(LABELLED, title="Another shirt")])
    own.with_settings("source.min_volume_ratio=0", "source.min_attribute_ratio=0").import_products()
    ran(own, "enrich_catalog")
    assert LABELLED not in of_model(own)
    assert newest(own, LABELLED)["reason"] == "no_answer"

    ran(own, "rollback_run", "--run-id", run["run_id"])
    assert set(of_model(own)) == set(range(ASKED, PRODUCTS))


@pytest.mark.slow
def test_an_attribute_without_labels_is_certified_by_verdicts(sample: SampleCatalog, tmp_path: Path) -> None:
    """No merchant gives a material; a reviewer confirms the rule's cotton and refuses its wool."""
    own = sample.copy_to(tmp_path / "sample").with_settings(*LOOSE)
    settings = [part for setting in LOOSE for part in ("--set", setting)]
    ran(own, "certify_model", *settings)
    version = own.registry.newest()
    ran(own, "enrich_catalog", "--set", "enrich.alias=candidate", *settings)
    assert not of_model(own, "material")

    def said(item: Item) -> Answer:
        return Answer.YES if item.value == "Cotton" else Answer.NONE

    sample_id = drawn(own, population=SampledPopulation.PROPOSALS, model_version=version, uniform=120, lowest=0.5,
                      attributes=("material",))["sample_id"]  # fmt: skip
    judge(own, sample_id, said)
    ingested(own)
    certified = ran(own, "certify_model", "--by-verdicts", "material", "--model-version", str(version), *settings)
    assert certified["paths"][0]["certified"] is not None
    ran(own, "promote_model", *settings)
    run = ran(own, "enrich_catalog", *settings)
    found = of_model(own, "material")
    assert set(found.values()) == {("Cotton",)}
    assert len(found) > PRODUCTS // 2
    ran(own, "rollback_run", "--run-id", run["run_id"])
    assert not of_model(own, "material")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*input example")
def test_a_model_of_mlflow_is_certified_and_written(sample: SampleCatalog, tmp_path: Path) -> None:
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    own = sample.copy_to(tmp_path / "sample")
    own.registry.connect(create=True)
    (tmp_path / "rule.py").write_text(MODEL)
    answers = [ColSpec("string", "color"), ColSpec("double", "color_score")]
    signature = ModelSignature(Schema([ColSpec("string", "title")]), Schema(answers))
    with mlflow.start_run(experiment_id=mlflow.create_experiment("rules", (tmp_path / "files").as_uri())):
        mlflow.pyfunc.log_model(
            name="model", python_model=str(tmp_path / "rule.py"), signature=signature, registered_model_name="rules",
            pip_requirements=[],
        )  # fmt: skip
    asked = {"kind": "pyfunc", "model": "models:/rules/1", "attributes": ["color"], "allow_code": True}
    settings = [part for key, value in asked.items() for part in ("--set", f"proposer.{key}={json.dumps(value)}")]
    certified = ran(own, "certify_model", *settings)
    assert certified["proposer"] == "models:/rules/1"
    assert {each["attribute"] for each in certified["certificates"]} == {"color"}
    ran(own, "promote_model", *settings)
    ran(own, "enrich_catalog", *settings)
    assert of_model(own) == {number: (color(number),) for number in range(LABELLED, PRODUCTS)}

    unallowed = ran(own, "enrich_catalog", code=2)  # the champion's code, and a config that names none
    assert "whose author's code would run" in unallowed["printed"]
    refused = ran(own, "certify_model", *settings, "--set", 'proposer.model="models:/rules/7"', code=2)
    assert "version 7" in refused["printed"]
    assert "versions 1" in refused["printed"]
    without = ran(own, "certify_model", *settings, "--set", "proposer.allow_code=false", code=2)
    assert "runs its author's code" in without["printed"]
