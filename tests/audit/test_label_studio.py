"""Tasks for Label Studio and its results, in the shape of its own JSON export."""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit import label_studio
from catalog_enrichment.audit.page.site import ScaledPictures
from catalog_enrichment.audit.review_records import Answer, ItemState, Purpose, RequestKind
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import ConfigError, DataContractError

from .review_samples import item, sample, verdict

ONE, TWO = item(1), item(2, title="", description="", images=())


@pytest.fixture
def store(page_store: ReviewStore) -> ReviewStore:
    page_store.add_sample(sample(), [ONE, TWO])
    return page_store


def _export(store: ReviewStore, config: Config, target: Path, sample_id: str = "s1") -> list[dict[str, Any]]:
    label_studio.export_tasks(store, sample_id, load_dictionary(config), ScaledPictures(config.pictures()), target)
    tasks: list[dict[str, Any]] = json.loads(target.read_text())
    return [task["data"] for task in tasks]


def _annotation(
    answer: str, *right: str, by: Any = None, at: str = "2026-03-02T10:00:00.5Z", **more: Any
) -> dict[str, Any]:
    chosen = {"answer": [answer]} | ({"right_values": list(right)} if right else {})
    results = [
        {"from_name": name, "to_name": "listing", "type": "choices", "value": {"choices": choices}}
        for name, choices in chosen.items()
    ]
    by = {"id": 1, "email": "ana@example.org"} if by is None else by
    return {"completed_by": by, "result": results, "was_cancelled": False, "created_at": at, "lead_time": 4.25, **more}


def _results(folder: Path, *tasks: tuple[Any, list[dict[str, Any]]]) -> Path:
    file = folder / "results.json"
    file.write_text(json.dumps([{"id": 1, "data": data, "annotations": annotations} for data, annotations in tasks]))
    return file


def test_a_task_carries_all_that_is_needed(store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    pictured = item(3, "s1b", images=((str(Path(site_config.root) / "feed" / "3.jpg"), "1"),))
    store.add_sample(sample("s1b"), [pictured])
    (data,) = _export(store, site_config, tmp_path / "pictured.json", "s1b")
    assert data["question"] == "color is Red. Is it correct?"
    assert data["picture"].startswith("data:image/jpeg;base64,")
    assert base64.b64decode(data["picture"].split(",")[1]).startswith(b"\xff\xd8\xff")
    assert {"value": "Red"} not in data["values"]
    assert len(data["values"]) == 303
    interface = ElementTree.fromstring((tmp_path / "pictured.labeling.xml").read_text())
    named = {value[1:] for node in interface.iter() for value in node.attrib.values() if value.startswith("$")}
    assert named <= set(data)
    choices = [node.get("value") for node in interface.iter("Choice")]
    assert choices == [answer.value for answer in Answer]
    store.add_sample(sample("s1c"), [item(4, "s1c", evidence="number 4", images=())])
    (quoted,) = _export(store, site_config, tmp_path / "quoted.json", "s1c")
    assert quoted["question"] == 'color is Red. Is it correct? The text says "number 4".'
    unpictured = _export(store, site_config, tmp_path / "t.json")[1]
    assert unpictured["product_id"] == TWO.product_id
    assert (unpictured["title"], unpictured["picture"][:18]) == ("(no title)", "data:image/svg+xml")
    with pytest.raises(ConfigError, match="there already"):
        _export(store, site_config, tmp_path / "t.json")


def test_results_become_verdicts_once(store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    first_task, second_task = _export(store, site_config, tmp_path / "t.json")
    file = _results(
        tmp_path,
        (first_task, [_annotation("no", at="2026-03-02T11:00:00Z"), _annotation("yes"), _annotation("no", by=7)]),
        (second_task, [_annotation("other", "Blue"), _annotation("yes", "Green", by={"id": 9}, was_cancelled=True)]),
    )
    dictionary = load_dictionary(site_config)
    summary = label_studio.import_results(store, dictionary, file)
    assert summary["annotations"] == {"added": 3, "skipped": 1}
    first, second = store.outcomes("s1")
    assert (first.state, first.answer) == (ItemState.SETTLED, Answer.NO)
    assert first.reviewers == ("Label Studio 7", "ana@example.org")
    (only,) = store.verdicts("s1")[second.item.item_id]
    assert (only.right_values, only.seconds, only.answered_at.microsecond) == (("Blue",), 4.25, 500_000)
    assert label_studio.import_results(store, dictionary, file)["annotations"] == {"known": 3, "skipped": 1}
    later = datetime(2026, 4, 1, tzinfo=UTC)
    store.add_verdict(verdict(TWO, "ana@example.org", Answer.CANNOT_TELL, answered_at=later))
    label_studio.import_results(store, dictionary, file)  # an old export does not bring the old answer back
    assert [given.answer for given in store.verdicts_of(TWO.item_id)] == [Answer.CANNOT_TELL]


def test_annotations_of_a_settled_item_are_named(store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    first_task, second_task = _export(store, site_config, tmp_path / "t.json")
    for name in ("Ana", "Ben"):
        store.add_verdict(verdict(ONE, name))
    given = (first_task, [_annotation("no", by=7), _annotation("yes", by=8)]), (second_task, [_annotation("yes")])
    summary = label_studio.import_results(store, load_dictionary(site_config), _results(tmp_path, *given))
    assert summary["annotations"] == {"added": 1, "refused": 2}
    assert sum("Label Studio 7" in line and "is settled" in line for line in summary["refused"]) == 1
    assert store.outcomes("s1")[0].reviewers == ("Ana", "Ben")


def test_answers_to_suggestions_ask_for_changes(page_store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    three = item(3, images=())
    page_store.add_sample(sample(purpose=Purpose.SUGGESTIONS, reviewers=1), [ONE, TWO, three])
    tasks = _export(page_store, site_config, tmp_path / "t.json")
    given = (_annotation("no"), _annotation("other", "Blue"), _annotation("none"))
    file = _results(tmp_path, *[(task, [annotation]) for task, annotation in zip(tasks, given, strict=True)])
    for _ in range(2):
        label_studio.import_results(page_store, load_dictionary(site_config), file)
    asked = {(request.kind, request.values, request.item_id) for request in page_store.requests()}
    assert asked == {
        (RequestKind.REFUSE, (ONE.value,), ONE.item_id),
        (RequestKind.SET, ("Blue",), TWO.item_id),
        (RequestKind.SET, (), three.item_id),
    }
    assert len(page_store.requests()) == 3


def test_a_gold_item_may_have_no_value(page_store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    asked = item(1, value="", images=())
    page_store.add_sample(sample(purpose=Purpose.GOLD), [asked])
    (task,) = _export(page_store, site_config, tmp_path / "t.json")
    assert (task["question"], len(task["values"])) == ("What is the color?", 304)
    file = _results(tmp_path, (task, [_annotation("none"), _annotation("no", by=7)]))
    summary = label_studio.import_results(page_store, load_dictionary(site_config), file)
    assert summary["annotations"] == {"added": 1, "refused": 1}
    (said,) = page_store.verdicts("s1")[asked.item_id]
    assert said.answer is Answer.NONE


def test_annotations_that_are_no_verdict_are_named(store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    first, second = _export(store, site_config, tmp_path / "t.json")
    without_answer = _annotation("yes") | {"result": []}
    file = _results(
        tmp_path,
        (first, [without_answer, _annotation("other", "Mauve"), _annotation("perhaps"), _annotation("other")]),
        ({"item_id": "nosuch"}, [_annotation("yes")]),
        (second, [_annotation("yes")]),
    )
    summary = label_studio.import_results(store, load_dictionary(site_config), file)
    assert summary["annotations"] == {"added": 1, "refused": 5}
    assert sum("'nosuch'" in line for line in summary["refused"]) == 1
    assert any("Mauve" in line for line in summary["refused"])


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"id": 1, "answer": "yes"}]'])
def test_another_file_is_refused(store: ReviewStore, site_config: Config, tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataContractError, match="is no"):
        label_studio.import_results(store, load_dictionary(site_config), tmp_path / "results.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        label_studio.import_results(store, load_dictionary(site_config), tmp_path / "nosuch.json")


def test_numbers_and_texts_are_typed(page_store: ReviewStore, site_config: Config, tmp_path: Path) -> None:
    one = item(1, "s9", attribute="width", value="109 cm", language="de", images=())
    page_store.add_sample(sample("s9", reviewers=2), [one])
    [task] = _export(page_store, site_config, tmp_path / "t.json", "s9")
    assert (task["values"], task["typed"]) == ([], "the right width, in cm or with its unit")
    assert [node.get("name") for node in ElementTree.fromstring(label_studio.LABELING_CONFIG).iter("TextArea")]

    def typed(text: str, by: str) -> dict[str, Any]:
        annotation = _annotation("other", by={"id": 1, "email": by})
        field = {"from_name": "typed_value", "to_name": "listing", "type": "textarea", "value": {"text": [text]}}
        return annotation | {"result": [*annotation["result"], field]}

    annotations = [
        typed("1.299 mm", "ana@example.org"), typed("130 cm", "ben@example.org"), typed("5 kg", "cleo@example.org"),
        typed("1,09 m", "dan@example.org"),
    ]  # fmt: skip
    done = label_studio.import_results(
        page_store, load_dictionary(site_config), _results(tmp_path, (task, annotations))
    )
    assert done["annotations"] == {"added": 2, "refused": 2}
    assert ["cannot be converted" in done["refused"][0], "same value" in done["refused"][1]] == [True, True]
    [outcome] = page_store.outcomes("s9")
    assert (outcome.state, outcome.right_values) == (ItemState.SETTLED, ("129.9 cm",)), "they agree"
