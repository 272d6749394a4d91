"""From the section [proposer] to a version: the alias is resolved, and what the signature promises is fixed."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from catalog_enrichment.config.proposer import NOTHING_SEEN, AnswersConfig, ProposerConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.proposers.pinning import Pinned, Shelf, pinned
from catalog_enrichment.proposers.pyfunc import hash_of_model
from catalog_enrichment.records import Cardinality

NAMES = ("color", "material")
WORDS = Dictionary({name: Attribute(name=name, cardinality=Cardinality.ONE, values=("a", "b")) for name in NAMES})
MADE = datetime(2026, 5, 28, tzinfo=UTC)


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        return model_input


def of(folder: Path, outputs: tuple[str, ...], answers: AnswersConfig | None = None, *inputs: str) -> Pinned:
    given = Schema([ColSpec("binary" if name == "image" else "string", name) for name in inputs or ("title",)])
    promised = Schema([ColSpec("string", name) for name in outputs]) if outputs else None
    with warnings.catch_warnings(action="ignore"):  # mlflow would like type hints and an example
        mlflow.pyfunc.save_model(
            str(folder / "model"), python_model=Model(), signature=ModelSignature(given, promised), pip_requirements=[]
        )
    settings = ProposerConfig(
        kind="pyfunc", model="models:/m@newest", allow_code=True, trained_on=NOTHING_SEEN, batch_rows=9,
        answers=answers or AnswersConfig(),
    )  # fmt: skip
    version = SimpleNamespace(name="m", version=7, created_at=MADE)
    asked: list[str] = []

    def find(uri: str) -> Any:
        asked.append(uri)
        return version

    def fetch(uri: str) -> Path:
        asked.append(uri)
        return folder / "model"

    shelf = Shelf(find=find, fetch=fetch, catalog=cast(Any, None))
    found = pinned(settings, WORDS, "declared", shelf)
    assert asked == ["models:/m@newest", "models:/m/7"]
    return found


def test_an_alias_is_resolved_once_and_the_version_is_what_is_certified(tmp_path: Path) -> None:
    version, made_at, reads_pictures = of(tmp_path, (), None, "title", "image")
    assert (version.kind, version.model, version.batch_rows) == ("pyfunc", "models:/m/7", 9)
    assert version.model_hash == hash_of_model(tmp_path / "model")
    assert (version.inputs, reads_pictures) == (["title", "image"], True)
    assert made_at == MADE
    assert version.dictionary == WORDS
    assert version.trained_on == "declared"


@pytest.mark.parametrize(
    ("outputs", "answers", "scores"),
    [
        ((), AnswersConfig(), {}),
        (("color", "color_score", "material"), AnswersConfig(), {"color": "color_score"}),
        (("c", "c_score"), AnswersConfig(columns={"color": "c"}), {"color": "c_score"}),
        (("color", "sure"), AnswersConfig(scores={"color": "sure"}), {"color": "sure"}),
        ((), AnswersConfig(scores={"material": "sure"}), {"material": "sure"}),
    ],
)
def test_whether_there_are_scores_is_fixed_by_the_signature_or_the_config(
    tmp_path: Path, outputs: tuple[str, ...], answers: AnswersConfig, scores: dict[str, str]
) -> None:
    assert of(tmp_path, outputs, answers).version.answers.scores == scores


def test_a_model_without_a_text_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models:/m/7 takes image, and neither title nor description"):
        of(tmp_path, (), None, "image")
