"""What people said is right trains the model, with its source kept; nothing is measured or certified by it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from catalog_enrichment.catalog import verdicts
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.schema import ImagesConfig, TrainingConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.precision.earlier_uses import EarlierUses
from catalog_enrichment.records import Cardinality, stable_hash
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset
from catalog_enrichment.training.task import split_of

from ..catalog.catalog_rows import run_row

WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "green")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("cotton", "wool")),
    }
)
SETTLED = datetime(2026, 5, 1, tzinfo=UTC)


def verdict(
    product: str, attribute: str, value: str, answer: str, *right: str, run: str = "audit-1"
) -> dict[str, object]:
    return {
        "item_id": f"{product}-{attribute}-{value}", "sample_id": "s", "purpose": "label", "product_id": product,
        "attribute": attribute, "value": value, "answer": answer, "right_values": list(right), "reviewers": ["ann"],
        "settled_at": SETTLED, "run_id": run,
    }  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> LakeCatalog:
    lake = LakeCatalog(tmp_path / "catalog")
    rows = [
        verdict("yes", "color", "red", "yes"),
        verdict("other", "color", "red", "other", "green"),
        verdict("no", "color", "red", "no"),
        verdict("unsure", "color", "red", "cannot_tell"),
        verdict("both", "material", "cotton", "yes"),
        verdict("both", "material", "wool", "yes"),
        verdict("merchant", "color", "red", "yes"),
        verdict("killed", "color", "red", "yes", run="audit-killed"),
    ]
    lake.append_rows("verdicts", rows, "rows")
    lake.append_rows("runs", [run_row("audit-1", kind="audit", attempt=1)], "audit-1#1")
    return lake


def test_right_values_are_labels_with_their_source(catalog: LakeCatalog) -> None:
    assert verdicts.labels(catalog) == {
        "yes": {"color": (("red",), "label")},
        "other": {"color": (("green",), "label")},
        "both": {"material": (("cotton", "wool"), "label")},
        "merchant": {"color": (("red",), "label")},
    }


def title(name: str) -> str:
    """Three words that no other product has: equal titles would be one content group."""
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in stable_hash(name)[:24])
    return " ".join(letters[start : start + 8] for start in (0, 8, 16))


def loaded(catalog: LakeCatalog, tmp_path: Path) -> Dataset:
    """300 products that the merchant labelled, and those that people were asked about."""
    of_merchant = {f"m{n}": [("color", ["red", "green"][n % 2 : n % 2 + 1])] for n in range(300)}
    asked = {name: [] for name in ("yes", "other", "no", "unsure", "both", "killed")}
    given = {**of_merchant, **asked, "merchant": [("color", ["green"])]}
    columns = {
        "product_id": list(given),
        "title": [title(name) for name in given],
        "merchant_attributes": pa.array(list(given.values()), pa.map_(pa.string(), pa.list_(pa.string()))),
        "opt_out": [False] * len(given),
        **{
            name: pa.nulls(len(given), pa.string())
            for name in ("description", "category", "language", "updated_at", "images")
        },
    }
    batch = pa.RecordBatch.from_pydict(columns)
    options = LoadOptions(
        attributes=["color", "material"], image_size=8, max_chars=200, images=ImagesConfig(), workdir=tmp_path,
        max_unlabelled=0,
    )  # fmt: skip
    return load_dataset(verdicts.with_labels(catalog, [batch]), WORDS, options)


def test_they_train_and_nothing_is_measured_by_them(catalog: LakeCatalog, tmp_path: Path) -> None:
    data = loaded(catalog, tmp_path)
    assert data.counts["labelled_by_people.label"] == 3
    assert "no" not in data.ids, "no right value is known, and it is not in the sample of unlabelled products"
    labels, place = data.labels("color"), {name: position for position, name in enumerate(data.ids)}
    assert labels.truth[place["yes"]].tolist() == [True, False]
    assert labels.truth[place["other"]].tolist() == [False, True]
    assert labels.truth[place["merchant"]].tolist() == [False, True], "the merchant's word counts"
    assert not labels.labelled[place["yes"]]
    assert not labels.unfilled[place["yes"]]
    assert labels.unfilled[place["both"]]
    assert data.labels("material").truth[place["both"]].tolist() == [True, True]

    settings = TrainingConfig(recipe="r", min_label_count=1, attributes=["color"])
    folds = split_of(data, settings, EarlierUses()).folds
    people = {place[name] for name in ("yes", "other", "both")}
    assert people <= set(folds.train.tolist())
    held_out = np.concatenate([index for name, index in folds.items() if name != "train"])
    assert not people & set(held_out.tolist())


def test_a_twin_of_a_held_out_product_does_not_train(catalog: LakeCatalog, tmp_path: Path) -> None:
    data = loaded(catalog, tmp_path)
    settings = TrainingConfig(recipe="r", min_label_count=1, attributes=["color"])
    held_out = split_of(data, settings, EarlierUses()).folds.test[0]
    place = data.ids.index("yes")
    data.titles[place] = data.titles[held_out]
    folds = split_of(data, settings, EarlierUses()).folds
    assert held_out in folds.test
    assert place not in folds.train
    assert data.ids.index("other") in folds.train
