"""People's answers train the model, with their source kept; nothing is measured or certified by them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from catalog_enrichment.catalog import human_labels, ledger
from catalog_enrichment.catalog.human_labels import HumanLabel
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.config.schema import TrainingConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.records import Cardinality, EarlierUses, stable_hash
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset
from catalog_enrichment.training.task import labels_of, split_of, task_of

from ..catalog.catalog_rows import run_row
from .toy import recipe

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
def catalog(tmp_path: Path) -> Catalog:
    lake = Catalog(tmp_path / "catalog")
    rows = [
        verdict("yes", "color", "red", "yes"),
        verdict("other", "color", "red", "other", "green"),
        verdict("no", "color", "red", "no"),
        verdict("unsure", "color", "red", "cannot_tell"),
        verdict("both", "material", "cotton", "yes"),
        verdict("both", "material", "wool", "yes"),
        verdict("merchant", "color", "red", "yes"),
        verdict("killed", "color", "red", "yes", run="audit-killed"),
        verdict("suggested", "color", "green", "no") | {"purpose": "suggestions"},
        verdict("half", "color", "green", "no") | {"purpose": "suggestions"},
    ]
    lake.append_rows("verdicts", rows, "rows")
    lake.append_rows("runs", [run_row("audit-1", kind="audit", attempt=1)], "audit-1#1")
    return lake


COLORS = {
    "yes": HumanLabel(("red",), (), "label"),
    "other": HumanLabel(("green",), ("red",), "label"),
    "no": HumanLabel((), ("red",), "label"),
    "merchant": HumanLabel(("red",), (), "label"),
    "suggested": HumanLabel((), ("green",), "suggestions"),
    "half": HumanLabel((), ("green",), "suggestions"),
}


def test_right_and_wrong_values_are_labels_with_their_source(catalog: Catalog) -> None:
    material = {"both": {"material": HumanLabel(("cotton", "wool"), (), "label")}}
    assert human_labels.labels(catalog) == {name: {"color": label} for name, label in COLORS.items()} | material


def test_the_newest_word_about_a_value_counts(catalog: Catalog) -> None:
    def later(minutes: int, answer: str, value: str, *right: str, product: str = "yes") -> dict[str, object]:
        row = verdict(product, "color", value, answer, *right, run="audit-2")
        return row | {"item_id": f"{minutes}", "settled_at": SETTLED + timedelta(minutes=minutes), "purpose": "audit"}

    rows = [
        later(1, "no", "red"),
        later(2, "yes", "red", product="no"),
        later(3, "yes", "green", product="other"),
        later(4, "other", "red", "red", product="both"),
        later(5, "cannot_tell", "red", product="merchant"),
    ]
    catalog.append_rows("verdicts", rows, "more")
    catalog.append_rows("runs", [run_row("audit-2", kind="audit", attempt=1)], "audit-2#1")
    found = {product: said["color"] for product, said in human_labels.labels(catalog).items() if "color" in said}
    assert found == COLORS | {
        "yes": HumanLabel((), ("red",), "audit"),
        "no": HumanLabel(("red",), (), "audit"),
        "other": HumanLabel(("green",), ("red",), "audit"),
        "both": HumanLabel(("red",), (), "audit"),
    }


def test_what_a_person_set_is_a_label_as_long_as_it_stands(catalog: Catalog) -> None:
    def said(number: int, product: str, *values: str, at: int) -> list[dict[str, object]]:
        stamp = ledger.RunStamp(f"set_value-{number}", None, None, SETTLED + timedelta(minutes=at))
        return ledger.human_assertions({"product_id": product, "content_hash": "c"}, "color", values, stamp)

    model = {"source": "model", "reason": "certified", "event_id": "m", "run_id": "enrich-1", "value": "red"}
    first, undone = said(1, "new", "red", at=1), said(2, "undone", "red", at=2)
    undo = undone[0] | {"event_id": "u", "op": "retract", "refers_to": undone[0]["event_id"], "run_id": "rollback-1"}
    events = [
        *first,
        *said(3, "new", "green", at=3),
        *undone,
        undo | {"undoes": undone[0]["event_id"], "asserted_at": SETTLED + timedelta(minutes=4)},
        *said(5, "removed", at=5),
        *said(6, "no", "green", at=6),
        *said(7, "other", "red", at=-7),
        *said(8, "yes", "red", at=8),
        first[0] | model | {"product_id": "of model"},
    ]
    catalog.append_rows("attribute_values", events, "events")
    found = human_labels.labels(catalog)
    assert found["new"] == {"color": HumanLabel(("green",), (), "correction")}
    assert found["no"] == {"color": HumanLabel(("green",), (), "correction")}, "later than the verdict"
    assert found["other"] == {"color": HumanLabel(("green",), ("red",), "label")}, "earlier than the verdict"
    assert found["yes"] == {"color": HumanLabel(("red",), (), "label")}, "the same, which came from the verdict"
    assert not {"undone", "removed", "of model"} & set(found)


def title(name: str) -> str:
    """Three words that no other product has: equal titles would be one content group."""
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in stable_hash(name)[:24])
    return " ".join(letters[start : start + 8] for start in (0, 8, 16))


def loaded(catalog: Catalog, tmp_path: Path) -> Dataset:
    """300 products that the merchant labelled, and those that people were asked about."""
    of_merchant = {f"m{n}": [("color", ["red", "green"][n % 2 : n % 2 + 1])] for n in range(300)}
    asked = {name: [] for name in ("yes", "other", "no", "unsure", "both", "killed", "suggested")}
    given = {**of_merchant, **asked, "merchant": [("color", ["green"])], "half": [("material", ["wool"])]}
    columns = {
        "product_id": list(given),
        "title": [title(name) for name in given],
        "merchant_attributes": pa.array(list(given.values()), pa.map_(pa.string(), pa.list_(pa.string()))),
        "opt_out": [False] * len(given),
        **{
            name: pa.nulls(len(given), pa.string())
            for name in ("description", "category", "language", "updated_at", "first_imported_at", "images")
        },
    }
    batch = pa.RecordBatch.from_pydict(columns)
    options = LoadOptions(
        attributes=["color", "material"], square=Square(8), max_chars=200, images=ImagesConfig(), workdir=tmp_path,
        max_unlabelled=0,
    )  # fmt: skip
    return load_dataset(human_labels.with_labels(catalog, [batch]), WORDS, options)


def test_they_train_and_nothing_is_measured_by_them(catalog: Catalog, tmp_path: Path) -> None:
    data = loaded(catalog, tmp_path)
    assert data.counts["labelled_by_people.label"] == 3
    assert (data.counts["refused_by_people.label"], data.counts["refused_by_people.suggestions"]) == (1, 2)
    assert "unsure" not in data.ids, "nobody could tell, and it is not in the sample of unlabelled products"
    labels, place = data.labels("color"), {name: position for position, name in enumerate(data.ids)}
    assert labels.truth[place["yes"]].tolist() == [True, False]
    assert labels.truth[place["other"]].tolist() == [False, True]
    assert labels.truth[place["merchant"]].tolist() == [False, True], "the merchant's word counts"
    assert not labels.labelled[place["yes"]]
    assert not labels.unlabelled[place["yes"]]
    assert labels.unlabelled[place["both"]]
    assert data.labels("material").truth[place["both"]].tolist() == [True, True]

    refused = labels.refused
    assert refused is not None
    assert {data.ids[row]: refused[row].tolist() for row in np.flatnonzero(refused.any(axis=1))} == {
        "no": [True, False],
        "suggested": [False, True],
        "half": [False, True],
    }
    assert not (labels.labelled | labels.unlabelled)[[place["no"], place["suggested"], place["half"]]].any()
    assert labels.in_loss[place["no"]]

    settings = TrainingConfig(recipe="r", min_label_count=1, attributes=["color"])
    folds = split_of(data, settings, EarlierUses()).folds
    people = {place[name] for name in ("yes", "other", "both", "no", "suggested")}
    assert people <= set(folds.train.tolist())
    held_out = np.concatenate([index for name, index in folds.items() if name != "train"])
    assert not people & set(held_out.tolist())


def test_in_a_held_out_fold_people_say_nothing(catalog: Catalog, tmp_path: Path) -> None:
    data = loaded(catalog, tmp_path)
    labels, place = data.labels("color"), {name: position for position, name in enumerate(data.ids)}
    train = np.setdiff1d(np.arange(len(data)), [place["half"], place["yes"]])
    kept = labels.people_only_in(train)
    assert kept.refused is not None
    assert (kept.refused.any(axis=1) != labels.refused.any(axis=1)).nonzero()[0].tolist() == [place["half"]]
    assert (kept.learnable != labels.learnable).nonzero()[0].tolist() == [place["yes"]]
    assert labels.people_only_in(np.arange(len(data))) is labels

    settings = TrainingConfig(recipe="r", min_label_count=1, attributes=["color", "material"])
    split = split_of(data, settings, EarlierUses())
    task = task_of(split, labels_of(data, settings), recipe().model)
    people = {place[name] for name in ("yes", "other", "no", "suggested")}
    assert people <= set(task.train.tolist())
    held_out = np.setdiff1d(np.arange(len(data)), split.folds.train)
    assert not task.labels["color"].in_loss[held_out][~task.labels["color"].labelled[held_out]].any()


def test_a_merchants_value_that_two_people_overturn_is_no_label_any_more(catalog: Catalog, tmp_path: Path) -> None:
    """The product stays labelled and in its fold, with what they said in place of the merchant's value."""
    two = {"reviewers": ["ann", "bob"], "run_id": "audit-3", "settled_at": SETTLED + timedelta(minutes=9)}
    rows = [
        verdict("m0", "color", "green", "yes") | two,
        verdict("m1", "color", "red", "yes") | two | {"reviewers": ["ann"]},
        verdict("m2", "color", "green", "other", "red") | two,
        verdict("m3", "color", "red", "no") | two,
        verdict("m4", "color", "green", "yes") | two | {"purpose": "suggestions"},
        verdict("half", "material", "cotton", "yes") | two,
    ]
    catalog.append_rows("verdicts", rows, "more")
    catalog.append_rows("runs", [run_row("audit-3", kind="audit", attempt=1)], "audit-3#1")
    data = loaded(catalog, tmp_path)
    labels, place = data.labels("color"), {name: position for position, name in enumerate(data.ids)}
    found = {name: labels.truth[place[name]].tolist() for name in ("m0", "m1", "m2", "m3", "m4")}
    assert found == {
        "m0": [False, True],
        "m1": [False, True],  # a single person is not enough against a merchant, who said green
        "m2": [True, False],  # two people agree with the merchant
        "m3": [False, True],  # nobody said what else is right
        "m4": [True, False],  # a shop's manager answered, not two reviewers
    }
    assert all(labels.labelled[place[name]] and not labels.unlabelled[place[name]] for name in found)
    assert data.counts["overturned"] == 2
    reviewed = {name: data.reviewed[place[name]] for name in ("m0", "m1", "m2", "m3", "m4", "half")}
    green, red = {"color": ("green",)}, {"color": ("red",)}
    assert reviewed == {**{"m0": red, "m1": {}, "m2": red, "m3": green, "m4": {}, "half": {"material": ("wool",)}}}
    material = data.labels("material").truth[place["half"]].tolist()
    assert material == [True, True], "a confirmed value is added to the merchant's, where there can be several"


def test_a_twin_of_a_held_out_product_does_not_train(catalog: Catalog, tmp_path: Path) -> None:
    data = loaded(catalog, tmp_path)
    settings = TrainingConfig(recipe="r", min_label_count=1, attributes=["color"])
    held_out = split_of(data, settings, EarlierUses()).folds.test[0]
    place = data.ids.index("yes")
    data.titles[place] = data.titles[held_out]
    folds = split_of(data, settings, EarlierUses()).folds
    assert held_out in folds.test
    assert place not in folds.train
    assert data.ids.index("other") in folds.train


def test_twins_of_a_gold_sample_are_kept_for_it(catalog: Catalog, tmp_path: Path) -> None:
    """Also those that people labelled: their answer about the gold product could certify nothing."""
    data, settings = loaded(catalog, tmp_path), TrainingConfig(recipe="r", min_label_count=1, attributes=["color"])
    before = split_of(data, settings, EarlierUses()).folds
    merchants, person, asked = int(before.train[0]), data.ids.index("yes"), data.ids.index("other")
    data.titles[person] = data.titles[merchants]
    assert {merchants, person} <= set(split_of(data, settings, EarlierUses()).folds.train.tolist())
    data.titles[asked] = data.titles[merchants]
    data.gold[asked] = {"material": ()}
    folds = split_of(data, settings, EarlierUses()).folds
    assert {merchants, person, asked} == set(folds.kept.tolist())
    assert not {merchants, person, asked} & set(folds.train.tolist())
    assert folds.certification.tolist() == before.certification.tolist()


def test_a_gold_answer_about_an_attribute_that_no_longer_applies_keeps_no_twins(
    catalog: Catalog, tmp_path: Path
) -> None:
    data, place = loaded(catalog, tmp_path), 0
    data.gold[place], data.categories[place] = {"material": ()}, "Perfumes"
    assert data.asked.tolist() == [number == place for number in range(len(data))]
    clothes = replace(WORDS["material"], categories=("Apparel",))
    data.dictionary = Dictionary({"color": WORDS["color"], "material": clothes})
    assert not data.asked.any()
    data.gold[place] |= {"color": ("red",)}
    assert data.asked[place]
