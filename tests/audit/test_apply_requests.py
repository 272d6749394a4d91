"""Requests of people and answers to suggestions: what is refused is not written again, and all become labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalog_enrichment.audit import apply_requests as job
from catalog_enrichment.audit import typed_values
from catalog_enrichment.audit.review_records import (
    Answer,
    ChangeRequest,
    Item,
    Purpose,
    RequestKind,
    request_of,
)
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.audit.sampling import offer_suggestions, offered_before
from catalog_enrichment.catalog import human_labels, review_tables, runs
from catalog_enrichment.catalog.human_labels import HumanLabel
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.operations.suggestions import open_suggestions

from ..open_words import OPEN_WORDS
from ..sample_catalog import SampleCatalog, change, enrich, killed_at, table, values
from . import review_samples as samples
from .review_samples import asked
from .reviewers import store_of


def answered(sample: SampleCatalog, item: Item, answer: Answer, *right: str) -> None:
    """Store the verdict and the request that follows from it, as the page does."""
    given = samples.verdict(item, "Mia", answer, *right, answered_at=datetime.now(UTC))
    with store_of(sample) as store:
        assert store.add_verdict(given, request_of(store.sample(item.sample_id), item, given))


def applied(sample: SampleCatalog) -> dict[str, Any]:
    with store_of(sample) as store:
        return job.apply_requests(sample.context(), store)


@pytest.mark.parametrize(
    ("request_", "is_answer"),
    [
        (asked(RequestKind.REFUSE, ("p", "color"), "Red"), True),
        (asked(RequestKind.ACCEPT, ("p", "color"), "Red", item_id="i"), True),
        (asked(RequestKind.SET, ("p", "color"), "Red", item_id="i"), True),
        (asked(RequestKind.SET, ("p", "color"), "Red"), False),
        (asked(RequestKind.UNDO, ("p", "color"), run_id="r"), False),
    ],
)
def test_what_answers_a_suggestion(request_: ChangeRequest, is_answer: bool) -> None:
    assert job.is_answer(request_) is is_answer


def test_a_suggestion_that_is_open_in_an_earlier_sample_is_not_offered_again(tmp_path: Path) -> None:
    with ReviewStore(tmp_path / "review.sqlite") as store:
        store.add_sample(samples.sample("audit"), [samples.item(9, "audit")])
        store.add_sample(samples.sample(purpose=Purpose.SUGGESTIONS), [samples.item(1), samples.item(2)])
        store.add_verdict(samples.verdict(samples.item(1), "Mia"))
        assert offered_before(store) == {("p001", "color", "Red"), ("p002", "color", "Red")}


def test_a_manager_who_says_that_there_is_no_value_refuses_the_value_and_asks_for_an_empty_set(tmp_path: Path) -> None:
    item, found = samples.item(1), samples.sample(purpose=Purpose.SUGGESTIONS, reviewers=1)
    with ReviewStore(tmp_path / "review.sqlite") as store:
        store.add_sample(found, [item])
        request = request_of(found, item, samples.verdict(item, "Mia", Answer.NONE))
        assert request is not None
        assert (request.kind, request.values) == (RequestKind.SET, ())
        row = job.verdict_row(store, request)
    assert (row["answer"], row["right_values"], row["value"]) == ("none", [], "Red")
    assert review_tables.refused_values([row], Dictionary({})) == {("p001", "color", "Red")}


def test_a_typed_number_is_read_in_the_products_language_once() -> None:
    context: Any = SimpleNamespace(dictionary=OPEN_WORDS)
    (stored,) = typed_values.stored_values(OPEN_WORDS, "width", ["1,299"], "de")
    asked = ChangeRequest(
        kind=RequestKind.SET, product_id="p1", attribute="width", values=(stored,), by="Ana", asked_at=samples.START
    )
    correction = job.correction_of(context, asked)
    assert correction.canonical_values(OPEN_WORDS["width"], "de") == ["1.299 cm"]
    removed = job.correction_of(context, replace(asked, values=()))
    assert (removed.remove, removed.canonical_values(OPEN_WORDS["width"], "de")) == (True, [])


@pytest.mark.slow
def test_a_refused_suggestion_is_neither_written_nor_suggested_again_and_trains(enriched: SampleCatalog) -> None:
    """One story on one catalog, because every run of Spark costs seconds."""
    context = enriched.context()
    with store_of(enriched) as store:
        sample_id = offer_suggestions(context, store)["sample_id"]
        offered = [item for item in store.items(sample_id) if item.attribute == "color"]
    refused, corrected, accepted, *rest = offered
    assert rest
    other = next(color for color in ("Red", "Green", "Blue") if color != corrected.value)
    answered(enriched, refused, Answer.NO)
    answered(enriched, corrected, Answer.OTHER, other)
    answered(enriched, accepted, Answer.YES)
    with killed_at(runs, "write"):
        applied(enriched)
    assert human_labels.labels(context.catalog) == {}, "a run that was killed says nothing"
    # they are about merchants' values, which people correct in the feed
    assert applied(enriched)["requests"] == {"applied": 1, "refused": 2}
    assert applied(enriched)["status"] == "nothing_to_do"
    rows = {row["item_id"]: row for row in table(enriched, "verdicts") if row["run_id"]}
    assert {row["purpose"] for row in rows.values()} == {"suggestions"}
    assert rows[corrected.item_id]["right_values"] == [other]
    assert human_labels.labels(context.catalog) == {
        refused.product_id: {"color": HumanLabel((), (refused.value,), "suggestions")},
        corrected.product_id: {"color": HumanLabel((other,), (corrected.value,), "suggestions")},
        accepted.product_id: {"color": HumanLabel((accepted.value,), (), "suggestions")},
    }
    suggestions = open_suggestions(enriched.context().catalog, context.dictionary).collect()
    still = {(row["product_id"], row["suggested_value"]) for row in suggestions}
    assert not still & {(item.product_id, item.value) for item in (refused, corrected)}
    assert (accepted.product_id, accepted.value) in still

    # without the merchant's value the model would write its own
    for item in (refused, rest[0]):
        change(enriched, int(item.product_id[1:]), color=None)
        enrich(enriched)
    seen = values(enriched, "model")
    assert seen[rest[0].product_id, "color"] == (rest[0].value,)
    assert (refused.product_id, "color") not in seen
    decided = [row for row in table(enriched, "predictions") if row["product_id"] == refused.product_id]
    assert "refused_by_person" in {row["reason"] for row in decided if row["attribute"] == "color"}

    # she changes her mind
    with store_of(enriched) as store:
        assert store.withdraw_verdict(refused.item_id, "Mia")
    answered(enriched, refused, Answer.YES)
    assert applied(enriched)["requests"] == {"applied": 1}
    assert values(enriched, "human")[refused.product_id, "color"] == (refused.value,)
    assert human_labels.labels(context.catalog)[refused.product_id]["color"].right == (refused.value,)

    # and once more: what her accept wrote is taken back, and she is not asked again
    answered(enriched, refused, Answer.NO)
    assert applied(enriched)["requests"] == {"applied": 1}
    assert (refused.product_id, "color") not in values(enriched)
    with store_of(enriched) as store:
        (*_, refusal) = store.requests_about(refused.product_id)
        assert "what Mia answered before is taken back by run" in refusal.outcome
        again = offer_suggestions(enriched.context(), store)
    assert (again["status"], again["suggestions"]) == ("nothing_to_do", 0)


@pytest.mark.slow
def test_a_refused_value_that_was_written_meanwhile_is_retracted_once(enriched: SampleCatalog) -> None:
    key, (value,) = next((key, value) for key, value in values(enriched, "model").items() if key[1] == "color")
    with store_of(enriched) as store:
        store.add_request(asked(RequestKind.REFUSE, key, value))
    with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
        applied(enriched)
    with store_of(enriched) as store:  # another request in between: the next run has another id
        store.add_request(asked(RequestKind.REFUSE, ("p000", "material"), "Wool"))
    assert applied(enriched)["requests"] == {"applied": 2}
    assert key not in values(enriched)
    (retract,) = (row for row in table(enriched, "attribute_values") if row["op"] == "retract")
    assert (retract["product_id"], retract["value"], retract["reason"]) == (key[0], value, "refused_by_person")
    assert enrich(enriched)["status"] == "nothing_to_do"
