"""A registered version's proposer: what its folder says; the model that it names is the model that was certified."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inference.pyfunc import AttributeModel
from catalog_enrichment.models.spec import Head
from catalog_enrichment.proposers import versions
from catalog_enrichment.proposers.given import Calibration
from catalog_enrichment.proposers.pyfunc import PyfuncProposer, hash_of_model
from catalog_enrichment.proposers.table import TableProposer
from catalog_enrichment.proposers.versions import GivenVersion
from catalog_enrichment.records import Cardinality

WORDS = Dictionary(
    {
        "color": Attribute(
            name="color", cardinality=Cardinality.ONE, values=("Red", "Blue"), aliases={"de": {"rot": "Red"}},
            categories=("Apparel",), was={"Crimson": "Red"},
        ),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("Wool",)),
    }
)  # fmt: skip
HEADS = {"color": Head(Cardinality.ONE, ("Red", "Blue")), "material": Head(Cardinality.MANY, ("Wool",))}


def unfetched(uri: str) -> Path:
    raise AssertionError(f"{uri} was fetched")


def given(**changes: Any) -> GivenVersion:
    known: dict[str, Any] = {
        "kind": "table", "name": "llm", "version": "1", "trained_on": "declared", "attributes": WORDS.to_plain(),
        "calibrations": {"color": Calibration(2.0, -0.5)},
    }  # fmt: skip
    return GivenVersion(**known | changes)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's files, as the registry gives them."""
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched" / "MLmodel").write_text("flavors: {}")
    return tmp_path / "fetched"


def of_model(model: Path) -> GivenVersion:
    answers = AnswersConfig(json_column="answer", scores={"color": "sure"})
    return given(
        kind="pyfunc", model="models:/colours/3", model_hash=hash_of_model(model), answers=answers,
        inputs=["title", "category"], batch_rows=7, timeout_seconds=9,
    )  # fmt: skip


def test_a_version_of_answers_is_read_as_it_was_written(tmp_path: Path) -> None:
    given(table_version=4).save(tmp_path / "version")
    assert GivenVersion.load(tmp_path / "version") == given(table_version=4)
    proposer = versions.open_version(tmp_path / "version", unfetched)
    assert isinstance(proposer, TableProposer)
    assert proposer.name == "answers of llm 1"
    assert proposer.heads == versions.heads_of(tmp_path / "version") == HEADS
    assert proposer.calibrations == {"color": Calibration(2.0, -0.5)}
    assert Dictionary.from_plain(WORDS.to_plain()) == WORDS


def test_a_version_of_a_model_has_the_model_that_was_certified(tmp_path: Path, model: Path) -> None:
    of_model(model).save(tmp_path / "version")
    (model / "registered_model_meta").write_text("written by MLflow when it fetched the files")
    fetched = []
    proposer = versions.open_version(tmp_path / "version", lambda uri: fetched.append(uri) or model)  # type: ignore[func-returns-value]
    assert isinstance(proposer, PyfuncProposer)
    assert fetched == ["models:/colours/3"]
    assert (proposer.inputs, proposer.batch_rows, proposer.timeout_seconds) == (("title", "category"), 7, 9)
    assert proposer.columns == AnswersConfig(json_column="answer", scores={"color": "sure"})
    assert proposer.dictionary == WORDS
    assert proposer.reads == ("category", "language")  # the dictionary has aliases of a language
    assert versions.heads_of(tmp_path / "version") == HEADS


def test_other_files_under_the_models_name_are_refused(tmp_path: Path, model: Path) -> None:
    of_model(model).save(tmp_path / "version")
    (model / "MLmodel").write_text("flavors: {other: {}}")
    with pytest.raises(ModelContractError, match=r"models:/colours/3: .*certify the model again"):
        versions.open_version(tmp_path / "version", lambda _: model)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"kind": "table"}', "damaged"),
        (None, "incomplete: proposer.json is missing|no model.json|has no SHA256SUMS|is missing"),
    ],
)
def test_a_damaged_version_is_refused(content: str | None, says: str, tmp_path: Path) -> None:
    given().save(tmp_path / "version")
    file = tmp_path / "version" / versions.PROPOSER
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(ModelContractError, match=says):
        versions.open_version(tmp_path / "version", unfetched)


def test_all_that_makes_a_score_is_in_the_hash_of_the_weights() -> None:
    """And nothing that does not: the declaration, the version of the table."""
    tables = [given(), given(name="other"), given(version="2"), given(calibrations={})]
    tables.append(given(attributes=WORDS.to_plain()[:1]))
    hashes = [each.proposer(unfetched).weights_hash for each in tables]
    assert len(set(hashes)) == len(hashes)
    assert given(trained_on="other", table_version=9).proposer(unfetched).weights_hash == hashes[0]


def test_mlflow_does_not_serve_another_models_proposals(tmp_path: Path) -> None:
    given().save(tmp_path / "version")
    context = SimpleNamespace(artifacts={"model": str(tmp_path / "version")})
    with pytest.raises(ModelContractError, match="was not trained here"):
        AttributeModel().load_context(context)
