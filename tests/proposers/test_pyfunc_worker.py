"""Models of MLflow that were made elsewhere: their signatures, what they return, and all that goes wrong in a call."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from catalog_enrichment.config.images import FetchConfig, ImagesConfig, StoredImagesConfig
from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inference.forward import ScoredRow
from catalog_enrichment.models.spec import Head
from catalog_enrichment.precision.units import NOTHING
from catalog_enrichment.proposers.answers import AnswerReader
from catalog_enrichment.proposers.given import Calibration
from catalog_enrichment.proposers.pyfunc_worker import (
    MOST_FAILURES,
    ForeignModel,
    Products,
    inputs_of,
    load_model,
    score_batches,
)
from catalog_enrichment.records import Cardinality

from ..sample_catalog import jpeg

COLOR = Attribute(
    name="color",
    cardinality=Cardinality.ONE,
    values=("Red", "Blue"),
    aliases={"de": {"rot": "Red"}, "es": {"rot": "Blue"}},
)
MATERIAL = Attribute(name="material", cardinality=Cardinality.MANY, values=("Wool", "Silk"))
WORDS = Dictionary({"color": COLOR, "material": MATERIAL})
HEADS = {name: Head(each.cardinality, each.values) for name, each in WORDS.attributes.items()}
LIMITS = ImagesConfig()
PICTURE = jpeg((200, 30, 30))


def products(*titles: str | None, **columns: Sequence[Any]) -> Products:
    number = len(titles)
    given: dict[str, Any] = {
        "descriptions": [None] * number,
        "images": [[]] * number,
        "contents": [f"{title}" for title in titles],
        "categories": [None] * number,
        "languages": [None] * number,
    }
    return Products(titles, **(given | columns))


class Stub:
    """A model as MLflow loads it: ``predict`` of a DataFrame. Remembers the titles of each call."""

    def __init__(self, predict: Callable[[pd.DataFrame], Any]) -> None:
        self._predict = predict
        self.calls: list[list[str]] = []
        self.frames: list[pd.DataFrame] = []

    def predict(self, frame: pd.DataFrame) -> Any:
        self.calls.append(list(frame["title"]))
        self.frames.append(frame)
        return self._predict(frame)


def foreign(predict: Any, *attributes: str, **changes: Any) -> ForeignModel:
    model = predict if hasattr(predict, "predict") else Stub(predict)
    options: dict[str, Any] = {
        "name": "models:/colors/3",
        "inputs": ("title",),
        "answers": AnswersConfig(),
        "heads": {name: HEADS[name] for name in attributes or ("color",)},
        "reader": AnswerReader(WORDS),
        "calibrations": {},
        "batch_rows": 64,
        "timeout_seconds": 30,
    }
    return ForeignModel(model=model, **(options | changes))


def found(row: ScoredRow) -> list[tuple[str, str, float]]:
    return [(each.attribute, each.value, each.score) for each in row.candidates]


def with_scores(*attributes: str) -> AnswersConfig:
    """As pinned for a model whose signature has these attributes' columns of scores."""
    return AnswersConfig(scores={name: f"{name}_score" for name in attributes})


def scored(result: Any, *attributes: str, titles: Sequence[str] = ("one", "two"), **changes: Any) -> list[Any]:
    if isinstance(result, pd.DataFrame | dict) and "color_score" in result:
        changes["answers"] = with_scores("color")
    model = foreign(lambda _: result, *attributes, **changes)
    rows = model.score(products(*titles), LIMITS)
    assert [row.error for row in rows] == [None] * len(rows)
    assert {row.compute_type for row in rows} == {"given"}
    return [found(row) for row in rows]


RED, NONE = [("color", "Red", 1.0)], [("color", NOTHING, 0.0)]
QUARTER = [("color", "Red", 0.25)]
JSON = AnswersConfig(json_column="answer")


@pytest.mark.parametrize(
    ("result", "answers", "expected"),
    [
        (pd.DataFrame({"color": ["Red", None]}), AnswersConfig(), [RED, NONE]),
        (pd.DataFrame({"color": ["Red", float("nan")]}, index=[7, 7]), AnswersConfig(), [RED, NONE]),
        (pd.DataFrame({"color": ["Red", "Red"], "color_score": [0.25, np.nan]}), AnswersConfig(), [QUARTER, NONE]),
        (pd.DataFrame({"color": ["Red", "Red"], "color_score": [1.5, -0.1]}), AnswersConfig(), [NONE, NONE]),
        (
            pd.DataFrame({"color": ["Red", None], "color_score": np.float32([0.25, 1])}),
            AnswersConfig(),
            [QUARTER, NONE],
        ),
        (
            pd.DataFrame({"c": ["Red", "x"], "s": [0.25, 1]}),
            AnswersConfig(columns={"color": "c"}, scores={"color": "s"}),
            [QUARTER, NONE],
        ),
        (
            pd.DataFrame(
                {"color": [["Blue", "Red"], np.array(["Red"])], "color_score": [np.array([0.125, 0.25]), [1.0]]}
            ),
            AnswersConfig(),
            [QUARTER, RED],
        ),
        (
            pd.DataFrame(
                {"color": [[{"value": "Red", "score": 0.25, "decision": "abstain"}], [{"value": None, "score": None}]]}
            ),
            AnswersConfig(),
            [QUARTER, NONE],
        ),
        (pd.DataFrame({"color": [{"value": "Red", "score": np.nan}, {"value": "Red"}]}), AnswersConfig(), [NONE, RED]),
        (pd.DataFrame({"answer": ['```json\n{"color": "Red", "color_score": 0.25}\n```', "?"]}), JSON, [QUARTER, NONE]),
        (pd.DataFrame({"answer": ['{"color": {"value": "Red", "score": 0.25}}', "{}"]}), JSON, [QUARTER, NONE]),
        (pd.Series(['{"color": "Red"}', None]), JSON, [RED, NONE]),
        (['{"color": "Red"}', '{"color": null}'], JSON, [RED, NONE]),
        ([{"answer": '{"color": "Red"}'}, {}], JSON, [RED, NONE]),
        ([{"color": "Red", "color_score": 0.25}, {}], AnswersConfig(), [QUARTER, NONE]),
        ([{"color": "Red"}, None], AnswersConfig(), [RED, NONE]),
        ([{"color": {"value": "Red", "score": 0.25}}, {"color": []}], AnswersConfig(), [QUARTER, NONE]),
        ([{"value": "Red", "score": 0.25}, {"value": None}], AnswersConfig(), [QUARTER, NONE]),
        ([[{"value": "Red", "score": 0.25}], []], AnswersConfig(), [QUARTER, NONE]),
        (np.array(["Red", "Green"]), AnswersConfig(), [RED, NONE]),
        (np.array([["Red"], ["Green"]], dtype=object), AnswersConfig(), [RED, NONE]),
        (pd.Series(["Red", None], name="y"), AnswersConfig(), [RED, NONE]),
        ({"color": ["Red", None], "color_score": np.array([0.25, 0.5])}, AnswersConfig(), [QUARTER, NONE]),
    ],
)
def test_every_form_of_a_result_is_read(result: Any, answers: AnswersConfig, expected: list[Any]) -> None:
    assert scored(result, answers=answers) == expected


def test_several_attributes_evidence_calibration_and_the_language_of_spellings() -> None:
    result = pd.DataFrame(
        {"color": ["rot", "rot"], "color_evidence": ["a quote", np.nan], "material": [["Silk", "Wool"], None]}
    ).assign(color_score=0.25)
    options = {"calibrations": {"color": Calibration(2.0, 0.0)}, "answers": with_scores("color")}
    model = foreign(lambda _: result, "color", "material", **options)
    first, second = model.score(products("one", "two", languages=["de", "es"]), LIMITS)
    assert found(first) == [("color", "Red", pytest.approx(0.1)), ("material", "Silk", 1.0), ("material", "Wool", 1.0)]
    assert [each.rank for each in first.candidates] == [1, 1, 2]
    assert [each.evidence for each in first.candidates] == ["a quote", None, None]
    assert found(second)[0][:2] == ("color", "Blue")
    assert found(second)[1] == ("material", NOTHING, 0.0)
    assert second.candidates[0].evidence is None


def test_what_could_not_be_used_of_an_answer_is_told_with_the_product() -> None:
    values = ["Mauve", "x" * 200, "Red", "Red", ["Red", 1j]]
    frame = pd.DataFrame({"color": values, "color_score": [0.5, 0.5, 7, 0.5, 0.5]})
    model = foreign(lambda _: frame, answers=with_scores("color"))
    rows = model.score(products("one", "two", "three", "four", "five"), LIMITS)
    assert [found(row) for row in rows[:3]] == [NONE] * 3
    assert [json.loads(row.detail)["color"] if row.detail else None for row in rows[:4]] == [
        {"'Mauve' is no value of the dictionary": 1},
        {"a text too long for a value": 1},
        {"a score that is none": 1},
        None,
    ]
    assert all(row.error is None for row in rows)


def test_whether_there_are_scores_does_not_depend_on_a_call() -> None:
    """What a call without the column says of a product is not used; a column that nobody named is refused."""
    frames = [pd.DataFrame({"color": ["Red"], "color_score": [0.25]}), pd.DataFrame({"color": ["Red"]})]
    model = foreign(lambda _: frames.pop(0), answers=with_scores("color"))
    first, second = (model.score(products(title), LIMITS)[0] for title in ("one", "two"))
    assert (found(first), second.error) == (QUARTER, "scoring_failed")
    with pytest.raises(ConfigError, match=r"column color_score, which neither the outputs"):
        foreign(lambda _: pd.DataFrame({"color": ["Red"], "color_score": [0.25]})).score(products("one"), LIMITS)


def test_rows_in_another_order_are_those_of_their_index() -> None:
    result = pd.DataFrame({"color": ["Blue", "Red"]}, index=[1, 0])
    assert scored(result) == [RED, [("color", "Blue", 1.0)]]


def test_once_a_call_was_read_a_result_of_no_form_is_that_products() -> None:
    frames = [pd.DataFrame({"color": ["Red"]}), pd.DataFrame({"note": ["?"]})]
    model = foreign(lambda _: frames.pop(0))
    rows = [model.score(products(title), LIMITS)[0] for title in ("one", "two")]
    assert [row.error for row in rows] == [None, "scoring_failed"]


def test_where_a_connection_fails_the_product_waits() -> None:
    def down(frame: pd.DataFrame) -> pd.DataFrame:
        raise ConnectionError("refused")

    (row,) = foreign(down).score(products("one"), LIMITS)
    assert (row.error, row.candidates, row.compute_type) == (None, [], "given")


def test_a_model_that_fails_for_every_product_ends_the_job() -> None:
    def down(frame: pd.DataFrame) -> pd.DataFrame:
        raise ConnectionError("refused")

    model = foreign(down, batch_rows=8)
    many = products(*(f"title {number}" for number in range(MOST_FAILURES + 10)))
    with pytest.raises(ConfigError, match="failed for 50 products in a row, the last with ConnectionError: refused"):
        model.score(many, LIMITS)


@pytest.mark.parametrize(
    ("result", "attributes", "answers", "says"),
    [
        (
            pd.DataFrame({"farbe": ["Red", "Red"]}),
            ("color",),
            AnswersConfig(),
            "no column color, with the columns farbe",
        ),
        (pd.DataFrame({"color": [1, 2]}), ("color", "material"), AnswersConfig(), "no column material"),
        (pd.DataFrame({"color": [1, 2]}), ("color",), AnswersConfig(scores={"color": "p"}), "no column p"),
        (pd.DataFrame({"color": [1, 2]}), ("color",), JSON, "no column answer"),
        (pd.DataFrame([[1, 2], [1, 2]], columns=["color"] * 2), ("color",), AnswersConfig(), "2 columns color"),
        ([{"farbe": "Red"}, {"farbe": "Red"}], ("color",), AnswersConfig(), "dicts with farbe"),
        (["Red", "Blue"], ("color", "material"), AnswersConfig(), "one column without a name"),
        (np.zeros((2, 3)), ("color",), AnswersConfig(), "an array of 2 x 3"),
        (None, ("color",), AnswersConfig(), "a NoneType"),
        ("Red", ("color",), AnswersConfig(), "a str"),
        ({"color": 3}, ("color",), AnswersConfig(), "no columns"),
        ({"color": ["Red", "Red"], "other": ["x"]}, ("color",), AnswersConfig(), "columns of the same length"),
    ],
)
def test_a_result_without_answers_ends_the_job_at_once(
    result: Any, attributes: tuple[str, ...], answers: AnswersConfig, says: str
) -> None:
    model = Stub(lambda _: result)
    with pytest.raises(ConfigError, match=says) as raised:
        foreign(model, *attributes, answers=answers).score(products("one", "two"), LIMITS)
    assert type(raised.value) is ConfigError
    assert "models:/colors/3 returned" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "problem", [ValueError("bad"), MemoryError(), SystemExit(3), KeyError("x"), ConfigError("theirs")]
)
def test_a_product_that_fails_is_quarantined_and_the_others_are_scored(problem: BaseException) -> None:
    def predict(frame: pd.DataFrame) -> pd.DataFrame:
        if "poison" in set(frame["title"]):
            raise problem
        return pd.DataFrame({"color": ["Red"] * len(frame)})

    model = foreign(predict, batch_rows=4)
    rows = model.score(products("a", "b", "poison", "c", "d", "e"), LIMITS)
    assert [row.error for row in rows] == [None, None, "scoring_failed", None, None, None]
    assert [found(row) for row in rows] == [RED, RED, [], RED, RED, RED]
    assert str(rows[2].detail).startswith(type(problem).__name__)
    assert model.rows == 4


def test_calls_become_smaller_where_only_their_size_was_too_much() -> None:
    def predict(frame: pd.DataFrame) -> list[str]:
        if len(frame) > 2:
            raise MemoryError("no room")
        return ["Red"] * len(frame)

    model = Stub(predict)
    rows = foreign(model, batch_rows=4).score(products(*"abcdef"), LIMITS)
    assert [found(row) for row in rows] == [RED] * 6
    assert [len(titles) for titles in model.calls] == [4, 2, 2, 2]


def test_another_number_of_rows_is_assigned_to_no_product() -> None:
    model = foreign(lambda frame: ["Red"] * (len(frame) if len(frame) == 1 else 3))
    assert [found(row) for row in model.score(products("a", "b"), LIMITS)] == [RED, RED]
    for returned in (
        [],
        ["Red"] * 2,
        pd.DataFrame({"color": ["Red"] * 2}),
        np.array(["Red"] * 2),
        {"color": ["Red"] * 2},
    ):
        [row] = foreign(lambda _, returned=returned: returned).score(products("a"), LIMITS)
        assert row.error == "scoring_failed"
        number = 0 if isinstance(returned, list) and not returned else 2
        assert row.detail == f"RowsError: returned {number} rows for 1 products"


def test_a_call_that_takes_too_long_is_stopped_and_others_are_scored() -> None:
    def predict(frame: pd.DataFrame) -> list[str]:
        try:
            if "slow" in set(frame["title"]):
                time.sleep(60)
        except Exception:  # a model that would go on
            return []
        return ["Red"] * len(frame)

    start = time.monotonic()
    rows = foreign(predict, timeout_seconds=0.2).score(products(*["slow", "c"] * 4), LIMITS)
    assert [row.error for row in rows] == ["scoring_failed", None] * 4
    assert rows[0].detail == "TooSlowError: the call took more than 0.2 s"
    assert time.monotonic() - start < 20


def test_a_model_that_always_sleeps_ends_the_job() -> None:
    model = Stub(lambda _: time.sleep(60))
    with pytest.raises(ConfigError, match=r"more than 0\.1 s for a single product, 3 times in a row.*timeout_seconds"):
        foreign(model, timeout_seconds=0.1, batch_rows=8).score(products(*"abcdefghij"), LIMITS)
    assert [len(titles) for titles in model.calls] == [8, 4, 2, 1, 1, 2, 1]


def missing(_: pd.DataFrame) -> Any:
    import a_package_that_is_missing  # type: ignore[import-not-found] # noqa: F401


def test_a_missing_package_ends_the_job_rather_than_losing_every_product() -> None:
    model = Stub(missing)
    with pytest.raises(ConfigError, match=r"needs the package a_package_that_is_missing.*requirements\.txt") as raised:
        foreign(model).score(products(*map(str, range(64))), LIMITS)
    assert len(str(raised.value).splitlines()) == 1
    assert sum(len(titles) == 1 for titles in model.calls) == 5


def test_a_package_that_few_products_need_costs_only_these() -> None:
    model = foreign(lambda frame: missing(frame) if "7" in set(frame["title"]) else ["Red"] * len(frame))
    rows = model.score(products("1", *["7"] * 9), LIMITS)
    assert [row.error for row in rows] == [None, *["scoring_failed"] * 9]


def test_a_product_without_a_title_is_not_given_to_the_model() -> None:
    model = Stub(lambda frame: ["Red"] * len(frame))
    rows = foreign(model).score(products(None, "a", " \x00 "), LIMITS)
    assert [row.error for row in rows] == ["empty_title", None, "empty_title"]
    assert model.calls == [["a"]]


def test_pictures_are_the_first_that_decodes_and_are_opened_only_if_the_model_takes_them() -> None:
    pictures = [
        [{"bytes": b"junk", "uri": None}, {"bytes": PICTURE, "uri": None}],
        [{"bytes": b"junk", "uri": None}],
        [],
        None,
    ]
    model = Stub(lambda frame: ["Red"] * len(frame))
    rows = foreign(model, inputs=("title", "image")).score(products(*"abcd", images=pictures), LIMITS)
    assert list(model.frames[0]["image"]) == [PICTURE, None, None, None]
    assert [row.modality for row in rows] == ["both", "text_only", "text_only", "text_only"]
    assert [row.image_reason for row in rows] == [None, "image_not_an_image", "no_image", "no_image"]
    rows = foreign(model).score(products(*"abcd", images=pictures), LIMITS)
    assert list(model.frames[1]) == ["title"]
    assert [row.modality for row in rows] == ["both", "both", "text_only", "text_only"]
    assert [row.image_reason for row in rows] == [None] * 4


def test_pictures_of_files_are_given_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    limits = StoredImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),)))
    model = Stub(lambda frame: ["Red"] * len(frame))
    batch = products("a", images=[[{"uri": str(tmp_path / "a.jpg")}]])
    foreign(model, inputs=("title", "image")).score(batch, limits)
    assert list(model.frames[0]["image"]) == [PICTURE]


def test_a_null_is_no_value_and_nothing_unreadable() -> None:
    model = foreign(lambda _: pd.DataFrame({"color": [np.nan, pd.NA]}))
    rows = model.score(products("a", "b"), LIMITS)
    assert [(found(row), row.detail) for row in rows] == [(NONE, None)] * 2


def test_pictures_of_a_repeated_call_stay_with_their_products() -> None:
    own = [jpeg((number * 40, 0, 0)) for number in range(4)]
    seen: dict[str, bytes] = {}

    def predict(frame: pd.DataFrame) -> list[str]:
        if len(frame) > 1:
            raise ValueError("one at a time")
        seen[frame["title"][0]] = frame["image"][0]
        return ["Red"]

    images = [[{"bytes": data}] for data in own]
    foreign(predict, inputs=("title", "image")).score(products(*"abcd", images=images), LIMITS)
    assert seen == dict(zip("abcd", own, strict=True))


def test_equal_contents_are_scored_once_for_each_value_of_what_is_read() -> None:
    model = Stub(lambda frame: ["Red"] * len(frame))
    batch = products("a", "a", "a", "b", contents=["1", "1", "1", "2"], categories=["x", "y", "x", "x"])
    for reads, calls in (((), [["a", "b"]]), (("category",), [["a", "a", "b"]]), (("language",), [["a", "b"]])):
        model.calls.clear()
        found_rows = list(score_batches(foreign(model), [batch, batch], LIMITS, reads))
        assert [len(rows) for rows in found_rows] == [4, 4]
        assert model.calls == calls


class Colors(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        read = [Counter(str(title).split()).get("red", 0) for title in model_input["title"]]
        missing_texts = [value is None for value in model_input["description"]]
        has_bytes = [isinstance(value, bytes) for value in model_input["image"]]
        return pd.DataFrame(
            {"color": ["Red" if number else None for number in read]}
            | {"color_score": [0.5 + 0.25 * a + 0.125 * b for a, b in zip(missing_texts, has_bytes, strict=True)]}
        )


class WithoutPackage(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:  # noqa: ARG002
        missing(pd.DataFrame())

    def predict(self, context: Any, model_input: pd.DataFrame) -> None:
        raise NotImplementedError


class Broken(WithoutPackage):
    def load_context(self, context: Any) -> None:  # noqa: ARG002
        raise RuntimeError("no\nweights")


def signature(*columns: tuple[Any, ...]) -> ModelSignature:
    return ModelSignature(Schema([ColSpec(kind, name, *required) for kind, name, *required in columns]))


def saved(folder: Path, model: Any, given: ModelSignature | None) -> Path:
    with warnings.catch_warnings(action="ignore"):  # mlflow would like an example of the input, and type hints
        mlflow.pyfunc.save_model(str(folder / "model"), python_model=model, signature=given, pip_requirements=[])
    return folder / "model"


def test_a_saved_model_gets_what_its_signature_says(tmp_path: Path) -> None:
    columns = signature(
        ("string", "description"), ("string", "title"), (AnyType(), "image"), ("double", "price", False)
    )
    folder = saved(tmp_path, Colors(), columns)
    assert inputs_of(folder) == ("title", "description", "image")
    answers = with_scores("color")
    model = foreign(load_model(folder, "m"), inputs=inputs_of(folder), batch_rows=2, answers=answers)
    batch = products(
        "red hat", "hat", "a red one", descriptions=["x", None, None], images=[[{"bytes": PICTURE}], [], []]
    )
    rows = model.score(batch, LIMITS)
    assert [row.detail for row in rows] == [None] * 3
    assert [found(row) for row in rows] == [[("color", "Red", 0.625)], NONE, [("color", "Red", 0.75)]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "no signature"),
        (signature(("binary", "image"), ("string", "category")), "image, category, and neither title nor description"),
        (signature(("string", "title"), ("double", "price"), ("string", "brand")), "a catalog has no price, brand"),
        (signature(("string", "title"), ("string", "image")), "takes image as string, but it is given as binary"),
        (signature(("long", "title")), "takes title as long, but it is given as string"),
        (ModelSignature(Schema([ColSpec("string")])), "not columns with names"),
        (ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 3))])), "not columns with names"),
    ],
)
def test_a_model_that_a_catalog_cannot_feed_is_refused(tmp_path: Path, given: Any, says: str) -> None:
    mlflow.models.Model(signature=given).save(str(tmp_path / "MLmodel"))
    with pytest.raises(ConfigError, match=says) as raised:
        inputs_of(tmp_path, "models:/colors/3")
    assert str(raised.value).startswith("models:/colors/3 ")
    assert "title, description, image, category, language" in str(raised.value)


def test_a_model_that_cannot_be_loaded_says_what_to_do(tmp_path: Path) -> None:
    columns = signature(("string", "title"))
    folder = saved(tmp_path / "a", WithoutPackage(), columns)
    with pytest.raises(ConfigError, match=r"m needs the package a_package_that_is_missing.*Install"):
        load_model(folder, "m")
    with pytest.raises(ConfigError, match=r"m cannot be loaded: RuntimeError: no weights\. Load it"):
        load_model(saved(tmp_path / "b", Broken(), columns), "m")
    # an import of the author's module, which is not there
    text = (folder / "MLmodel").read_text().replace("mlflow.pyfunc.model", "module_of_the_author")
    (folder / "MLmodel").write_text(text)
    with pytest.raises(ConfigError, match="m needs the package module_of_the_author"):
        load_model(folder, "m")
