"""One product for people: what readers see of it and why, its history, and what can be asked for. Without Spark.

The facts and sentences are those of explain_value, whose Spark queries take seconds even for a single product. The
tables are scanned from the beginning to the end, which takes about a second per million rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger, review_tables, runs, switches
from catalog_enrichment.catalog.ledger import active_rows
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.operations import explain, value_history
from catalog_enrichment.operations.explain import PersonSet, ValueFacts
from catalog_enrichment.records import Op, QuarantineStage, RunKind, RunStatus, Source
from catalog_enrichment.values.spelling import fold

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

Row = Mapping[str, Any]

FOUND_PRODUCTS = 20
"""Most products that a search lists."""
_OF_RUN = ("run_id", "attempt", "kind", "status", "window", "attributes", "config", "finished_at")
_TABLES = ("current_values", "attribute_values", "predictions", "quarantine")
_DID = {Op.ASSERT.value: "set", Op.RETRACT.value: "taken back", Op.REINSTATE.value: "reinstated"}


class ProductReader:
    """Reads single products of a catalog; every call sees the catalog as it is then."""

    def __init__(self, catalog: Catalog, dictionary: Dictionary, rules: EnrichConfig) -> None:
        """``catalog``: may be opened without Spark; ``rules``: disabled shops and categories."""
        self._catalog, self._dictionary, self._rules = catalog, dictionary, rules

    def search(self, text: str) -> list[dict[str, Any]]:
        """Return the product with this id, or at most :data:`FOUND_PRODUCTS` with all words of ``text`` in the
        title."""
        words = fold(text).split()
        found: list[dict[str, Any]] = []
        for row in self._rows("products", ("product_id", "title", "shop_id")):
            if row["product_id"] == text.strip():
                return [row]
            title = fold(row["title"] or "")
            if words and len(found) < FOUND_PRODUCTS and all(word in title for word in words):
                found.append(row)
        return found

    def product(self, product_id: str) -> dict[str, Any] | None:
        """Return the product's row; None if there is none."""
        columns = [name for name in contract.columns("products") if name != "updated_at"]
        for row in self._rows("products", columns, product_id):
            return row | {"merchant_attributes": dict(row["merchant_attributes"] or ())}  # Arrow gives pairs
        return None

    def explained(self, product: Row) -> list[dict[str, Any]]:
        """Return the explanation of every attribute that the product has or can have, in the dictionary's order."""
        tables = {name: list(self._rows(name, contract.columns(name), product["product_id"])) for name in _TABLES}
        attempts = runs.rows(self._catalog, _OF_RUN) if any(tables.values()) else []
        named = {row["attribute"] for name in ("current_values", "attribute_values") for row in tables[name]}
        shown = [
            attribute
            for attribute in self._dictionary.attributes.values()
            if attribute.name in named or (attribute.enabled and attribute.applies_to(product["category"]))
        ]
        rolled_back = runs.rolled_back(self._catalog, [attribute.name for attribute in shown]) if attempts else {}
        facts = [
            _facts(product, attribute, tables, attempts, rolled_back.get(attribute.name, set())) for attribute in shown
        ]
        switched, confirmed = switches.read(self._catalog), review_tables.confirmations(self._catalog)
        return [self._in_words(replace(found, switched=switched, confirmed=confirmed), attempts) for found in facts]

    def _in_words(self, facts: ValueFacts, attempts: Sequence[Row]) -> dict[str, Any]:
        current, person = facts.current, facts.person
        corrections = {row["run_id"] for row in attempts if row["kind"] == RunKind.SET_VALUE.value}
        by_merchant = current is not None and current["source"] == Source.MERCHANT.value
        undo_run = person.run_id if person and not by_merchant and person.run_id in corrections else ""
        return {
            "attribute": facts.name,
            "cardinality": facts.attribute.cardinality.value,
            "values": list(current["values"]) if current else [],
            "seen": explain.seen_in_words(current, person),
            "why": explain.why(facts, self._rules),
            "evidence": value_history.evidence_of(current, facts.history, facts.product),
            "by_merchant": by_merchant,
            "undo_run": undo_run,
            "said_by": (person.by if person else None) or "",
            "history": _history_in_words(facts.history),
        }

    def _rows(self, table: str, columns: Sequence[str], product_id: str | None = None) -> Iterable[dict[str, Any]]:
        import pyarrow.compute as pc

        for batch in self._catalog.scan(table, columns):
            wanted = batch if product_id is None else batch.filter(pc.equal(batch.column("product_id"), product_id))
            yield from wanted.to_pylist()


def _facts(
    product: Row,
    attribute: Attribute,
    tables: Mapping[str, Sequence[Row]],
    attempts: Sequence[Row],
    rolled_back: set[str],
) -> ValueFacts:
    """Return the facts of :func:`operations.explain.explain_value` about an attribute, from rows of one product."""

    def of_this(table: str) -> list[Row]:
        return [row for row in tables[table] if row["attribute"] == attribute.name]

    latest = {row["run_id"]: row for row in sorted(attempts, key=lambda row: row["attempt"])}
    decisions = [
        {**row, **{name: latest[row["run_id"]][name] for name in ("attributes", "config")}, "decided_at": finished}
        for row in of_this("predictions")
        if (finished := latest.get(row["run_id"], {}).get("finished_at"))
    ]
    decisions.sort(key=lambda row: row["rank"])
    decisions.sort(key=lambda row: row["decided_at"], reverse=True)
    events = sorted(
        of_this("attribute_values"), key=lambda row: (row["asserted_at"], row["run_id"], row["op"], row["value"])
    )
    decoding = [row for row in tables["quarantine"] if row["stage"] == QuarantineStage.DECODE.value]
    return ValueFacts(
        product=product,
        attribute=attribute,
        current=next(iter(of_this("current_values")), None),
        decisions=decisions,
        history=events,
        quarantined=sorted(decoding, key=lambda row: row["quarantined_at"], reverse=True),
        rolled_back=rolled_back,
        person=person_set(events, attempts),
    )


def person_set(events: Sequence[Row], attempts: Sequence[Row]) -> PersonSet | None:
    """Return the newest active set of a person. ``events``: all about one attribute of a product."""
    given = [event for event in active_rows(events) if event["source"] == Source.HUMAN.value]
    if not given:
        return None
    run_id = max(given, key=lambda event: (event["asserted_at"], event["run_id"]))["run_id"]
    succeeded = (row for row in attempts if row["run_id"] == run_id and row["status"] == RunStatus.SUCCEEDED.value)
    values = {event["value"] for event in given if event["run_id"] == run_id}
    return explain.person_set_of(values, run_id, next(succeeded, {}).get("window"))


def _history_in_words(history: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the events in words, newest first. ``history``: all about one attribute of a product, oldest first."""
    undoing = value_history.undoing_in_words(history)
    return [_event_in_words(event) | {"undoing": undoing[event["event_id"]]} for event in reversed(history)]


def _event_in_words(event: Row) -> dict[str, Any]:
    version = event["model_version"]
    by = "a person" if event["source"] == Source.HUMAN.value else f"model version {version}" if version else "a model"
    return {
        "at": event["asserted_at"],
        "did": _DID[event["op"]],
        "value": "no value" if event["value"] == ledger.NO_VALUE else event["value"],
        "by": by,
        "reason": (event["reason"] or "").replace("_", " "),
        "run_id": event["run_id"],
    }
