"""label_studio: writes samples as tasks for Label Studio and reads its results, as the JSON files that it uses.

A task carries the item's texts, the attribute's values and the first picture as a data URI, so that Label Studio needs
no access to the shops' pictures. The results are verdicts of the annotators.
https://labelstud.io/guide/tasks.html, https://labelstud.io/guide/export.html
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog_enrichment.audit import typed_values
from catalog_enrichment.audit.page.site import ScaledPictures
from catalog_enrichment.audit.review_records import Answer, Item, Verdict, person_key, request_of
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.records import RunStatus
from catalog_enrichment.web.quotes import Evidence

LABELING_CONFIG = """<View>
  <Image name="picture" value="$picture"/>
  <Header value="$title"/>
  <Text name="listing" value="$description"/>
  <Header value="$question"/>
  <Choices name="answer" toName="listing" choice="single" required="true" showInLine="true">
    <Choice value="yes" hotkey="y"/>
    <Choice value="no" hotkey="n"/>
    <Choice value="other" hotkey="v"/>
    <Choice value="none" hotkey="h"/>
    <Choice value="cannot_tell" hotkey="c"/>
  </Choices>
  <Choices name="right_values" toName="listing" value="$values" choice="multiple" layout="select"
           visibleWhen="choice-selected" whenTagName="answer" whenChoiceValue="other"/>
  <TextArea name="typed_value" toName="listing" maxSubmissions="1" placeholder="$typed"
            visibleWhen="choice-selected" whenTagName="answer" whenChoiceValue="other"/>
</View>
"""
"""The project's labeling interface, for Settings, Labeling Interface, Code."""


def export_tasks(
    store: ReviewStore, sample_id: str, dictionary: Dictionary, pictures: ScaledPictures, target: Path
) -> dict[str, Any]:
    """Write the sample's tasks to ``target`` and the labeling interface beside it. Return the job's summary.

    Raises ConfigError if the file exists, DataContractError for an unknown sample.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already: name another file")
    items = store.items(sample_id)
    interface = target.with_suffix(".labeling.xml")
    scratch = target.with_name(f".{target.name}.unfinished")
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch.open("w", encoding="utf-8") as file:  # a task at a time: pictures are large
        file.write("[")
        for number, item in enumerate(items):
            file.write(",\n" if number else "\n")
            json.dump({"data": _task(item, dictionary, pictures)}, file, ensure_ascii=False)
        file.write("\n]\n")
    interface.write_text(LABELING_CONFIG, encoding="utf-8")
    scratch.replace(target)
    return {"status": RunStatus.SUCCEEDED, "tasks": len(items), "file": str(target), "interface": str(interface)}


def _task(item: Item, dictionary: Dictionary, pictures: ScaledPictures) -> dict[str, Any]:
    picture = pictures.get(*item.images[0]) if item.images else None
    encoded = base64.b64encode(picture.data).decode() if picture else ""
    asked = f"{item.attribute} is {item.value}. Is it correct?" if item.value else f"What is the {item.attribute}?"
    evidence = Evidence.of(item.evidence, item.title, item.description).sentence
    found = dictionary.attributes.get(item.attribute)
    values = found.values if found else ()
    return {
        "item_id": item.item_id,
        "sample_id": item.sample_id,
        "product_id": item.product_id,
        "title": item.title or "(no title)",
        "description": "\n".join(text for text in (item.category, item.description) if text) or "(no description)",
        "question": f"{asked} {evidence}".strip(),
        "attribute": item.attribute,
        "value": item.value,
        "values": [{"value": value} for value in values if value != item.value],
        "typed": _what_to_type(found),
        "picture": f"data:image/jpeg;base64,{encoded}" if encoded else _NO_PICTURE,
    }


def _what_to_type(attribute: Attribute | None) -> str:
    """Return what the field for a typed value asks for."""
    if attribute is None or not attribute.is_open:
        return "choose from the list above"
    unit = attribute.number.unit if attribute.number else ""
    return f"the right {attribute.name}" + (f", in {unit} or with its unit" if unit else "")


_NO_PICTURE = (
    "data:image/svg+xml;base64,"
    + base64.b64encode(
        b'<svg xmlns="http://www.w3.org/2000/svg" width="240" height="40"><text x="8" y="26">no picture</text></svg>'
    ).decode()
)


def import_results(store: ReviewStore, dictionary: Dictionary, source: Path) -> dict[str, Any]:
    """Add the annotations in ``source``, Label Studio's export in the format JSON. Return the job's summary.

    An answer to a suggestion asks for the same change as on the page. A person's newest annotation of an item counts;
    an annotation that is not newer than the person's verdict in the store is known already, so importing the same file
    again adds nothing. Skipped (cancelled) annotations are counted and left out; what cannot be a verdict is counted
    and named under ``refused``. Raises ConfigError for a file that cannot be read and DataContractError for a file that
    is no such export.
    """
    counts, refused = Counter[str](), list[str]()
    newest: dict[tuple[str, str], Verdict] = {}
    for number, (data, annotation) in enumerate(_annotations(source)):
        if annotation.get("was_cancelled"):
            counts["skipped"] += 1
            continue
        try:
            verdict = _verdict(data, annotation)
            item = store.item(verdict.item_id)
            given = [
                *store.verdicts_of(item.item_id),
                *(each for each in newest.values() if each.item_id == item.item_id),
            ]
            right = typed_values.verdict_values(dictionary, item, verdict.right_values, verdict.reviewer, given)
            verdict = replace(verdict, right_values=tuple(sorted(right)))
            verdict.check(item, store.sample(item.sample_id).purpose)
            key = (verdict.item_id, person_key(verdict.reviewer))
            newest.pop(key, None)  # the order stays that of time
            newest[key] = verdict
        except (DataContractError, ValueError, KeyError, TypeError, AttributeError) as problem:
            counts["refused"] += 1
            refused.append(f"annotation {number} of item {data.get('item_id')!r}: {problem}")
    for (item_id, person), verdict in newest.items():
        own = [given for given in store.verdicts_of(item_id) if person_key(given.reviewer) == person]
        is_old = any(given.answered_at >= verdict.answered_at for given in own)
        item = store.item(item_id)
        request = request_of(store.sample(item.sample_id), item, verdict)
        try:
            counts["added" if not is_old and store.add_verdict(verdict, request) else "known"] += 1
        except DataContractError as problem:  # the item is settled or disputed by now
            counts["refused"] += 1
            refused.append(f"annotation of item {item_id!r} by {verdict.reviewer}: {problem}")
    return {"status": RunStatus.SUCCEEDED, "annotations": dict(sorted(counts.items())), "refused": refused[:100]}


def _annotations(source: Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield (data of the task, annotation), oldest first, so that a person's newest annotation counts."""
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"{source} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise DataContractError(f"{source} is no JSON: {problem}") from None
    tasks = content if isinstance(content, list) else [content]
    if not all(isinstance(task, dict) and {"annotations", "data"} <= set(task) for task in tasks):
        raise DataContractError(f"{source} is no export of Label Studio: choose its format JSON, not JSON-MIN or CSV")
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (task["data"], annotation) for task in tasks for annotation in task["annotations"]
    ]
    yield from sorted(found, key=lambda pair: str(pair[1].get("updated_at") or pair[1].get("created_at") or ""))


def _verdict(data: Mapping[str, Any], annotation: Mapping[str, Any]) -> Verdict:
    """Return the verdict. Raises ValueError, KeyError or TypeError for an annotation of another interface."""
    kinds = {"choices": "choices", "textarea": "text"}
    chosen = {
        result["from_name"]: result["value"][kinds[result["type"]]]
        for result in annotation["result"]
        if result["type"] in kinds
    }
    (answer,) = chosen["answer"]
    at = datetime.fromisoformat(str(annotation.get("updated_at") or annotation["created_at"]))
    typed = [text for text in chosen.get("typed_value", []) if text.strip()]
    right = [*chosen.get("right_values", []), *typed] if answer == Answer.OTHER.value else []
    return Verdict(
        item_id=data["item_id"],
        reviewer=_person(annotation["completed_by"]),
        answer=Answer(answer),
        right_values=tuple(sorted(right)),
        answered_at=at if at.tzinfo else at.replace(tzinfo=UTC),
        seconds=float(annotation.get("lead_time") or 0.0),
    )


def _person(completed_by: Any) -> str:
    """Return the annotator's email, or number in Label Studio."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or f"Label Studio {completed_by['id']}")
    return f"Label Studio {completed_by}"
