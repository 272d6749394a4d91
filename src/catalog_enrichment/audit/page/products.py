"""One product for people: what readers see of it and why, its history, and what can be asked for. Without Spark.

The same facts and sentences as explain_value, whose Spark queries take seconds even for one product. The tables are
scanned from the beginning to the end, which takes about a second per million rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.replay import active
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute, Dictionary, fold
from catalog_enrichment.operations import explain, lookup
from catalog_enrichment.operations.explain import Found
from catalog_enrichment.operations.lookup import PersonSet
from catalog_enrichment.records import Op, QuarantineStage, RunKind, RunStatus, Source

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

Row = Mapping[str, Any]

FOUND_PRODUCTS = 20
"""Most products that a search lists."""
_OF_RUN = ("run_id", "attempt", "parent_run_id", "kind", "status", "window", "attributes", "config", "finished_at")


class Products:
    """Reads single products of a catalog; every call sees the catalog as it is then."""

    def __init__(self, catalog: Catalog, dictionary: Dictionary, switches: EnrichConfig) -> None:
        """``catalog``: may be opened without Spark; ``switches``: disabled shops and categories."""
        self._catalog, self._dictionary, self._switches = catalog, dictionary, switches

    def search(self, text: str) -> list[dict[str, Any]]:
        """Products with this id, or with all words of ``text`` in the title; at most :data:`FOUND_PRODUCTS`."""
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
        """The product's row; None if there is none."""
        columns = [name for name in contract.columns("products") if name != "updated_at"]
        for row in self._rows("products", columns, product_id):
            return row | {"merchant_attributes": dict(row["merchant_attributes"] or ())}  # Arrow gives pairs
        return None

    def explained(self, product: Row) -> list[dict[str, Any]]:
        """What there is to say of every attribute that the product has or can have, in the dictionary's order."""
        tables = {
            name: list(self._rows(name, contract.columns(name), product["product_id"]))
            for name in ("current_values", "attribute_values", "predictions", "quarantine")
        }
        attempts = runs.rows(self._catalog, _OF_RUN) if any(tables.values()) else []
        named = {row["attribute"] for name in ("current_values", "attribute_values") for row in tables[name]}
        return [
            self._in_words(found, attempts)
            for attribute in self._dictionary.attributes.values()
            if attribute.name in named or (attribute.enabled and attribute.applies_to(product["category"]))
            for found in [_found(product, attribute, tables, attempts)]
        ]

    def _in_words(self, found: Found, attempts: Sequence[Row]) -> dict[str, Any]:
        current, person = found.current, found.person
        kinds = {row["run_id"]: row["kind"] for row in attempts}
        by_merchant = current is not None and current["source"] == Source.MERCHANT.value
        undo = person is not None and not by_merchant and kinds.get(person.run_id) == RunKind.SET_VALUE.value
        return {
            "attribute": found.name,
            "cardinality": found.attribute.cardinality.value,
            "values": list(current["values"]) if current else [],
            "seen": lookup.seen_in_words(current, person),
            "why": explain.why(found, self._switches),
            "by_merchant": by_merchant,
            "undo_run": person.run_id if undo and person is not None else "",
            "said_by": (person.by if person else None) or "",
            "history": [_event_in_words(event, kinds) for event in reversed(found.history)],
        }

    def _rows(self, table: str, columns: Sequence[str], product_id: str | None = None) -> Iterable[dict[str, Any]]:
        import pyarrow.compute as pc

        for batch in self._catalog.scan(table, columns):
            wanted = batch if product_id is None else batch.filter(pc.equal(batch.column("product_id"), product_id))
            yield from wanted.to_pylist()


def _found(product: Row, attribute: Attribute, tables: Mapping[str, Sequence[Row]], attempts: Sequence[Row]) -> Found:
    """The facts of :func:`operations.explain.explain_value` about one attribute, from rows of one product."""
    of_this: Callable[[str], list[Row]] = lambda table: [  # noqa: E731
        row for row in tables[table] if row["attribute"] == attribute.name
    ]
    latest = _latest_attempts(attempts)
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
    return Found(
        product=product,
        attribute=attribute,
        current=next(iter(of_this("current_values")), None),
        decisions=decisions,
        history=events,
        quarantined=sorted(decoding, key=lambda row: row["quarantined_at"], reverse=True),
        rolled_back=_rolled_back(attempts, attribute.name),
        person=person_set(events, attempts),
    )


def _latest_attempts(attempts: Sequence[Row]) -> dict[str, Row]:
    """Run id -> its newest row, whatever its status."""
    return {row["run_id"]: row for row in sorted(attempts, key=lambda row: row["attempt"] or 0)}


def _rolled_back(attempts: Sequence[Row], attribute: str) -> set[str]:
    """Ids of the runs whose work on ``attribute`` is taken back by a rollback that is itself not taken back."""
    done = [
        row for row in attempts if row["kind"] == RunKind.ROLLBACK.value and row["status"] == RunStatus.SUCCEEDED.value
    ]
    undone: set[str] = set()
    for row in sorted(done, key=lambda row: row["finished_at"], reverse=True):
        only = json.loads(row["window"] or "{}").get("attribute")
        if only in (None, attribute) and row["run_id"] not in undone:
            undone.add(row["parent_run_id"])
    return undone


def person_set(events: Sequence[Row], attempts: Sequence[Row]) -> PersonSet | None:
    """The newest set of a person that stands, of the events about one attribute of a product."""
    said = [event for event in active(events) if event["source"] == Source.HUMAN.value]
    if not said:
        return None
    run_id = max(said, key=lambda event: (event["asserted_at"], event["run_id"]))["run_id"]
    values = {event["value"] for event in said if event["run_id"] == run_id}
    succeeded = (row for row in attempts if row["run_id"] == run_id and row["status"] == RunStatus.SUCCEEDED.value)
    asked = json.loads(next(succeeded, {}).get("window") or "{}")
    return PersonSet(
        values=() if ledger.NO_VALUE in values else tuple(sorted(values)),
        run_id=run_id,
        by=asked.get("by"),
        reason=asked.get("reason"),
    )


def _event_in_words(event: Row, kinds: Mapping[str, str]) -> dict[str, Any]:
    value = "no value" if event["value"] == ledger.NO_VALUE else event["value"]
    version = event["model_version"]
    by = "a person" if event["source"] == Source.HUMAN.value else f"model version {version}" if version else "a model"
    did = {Op.ASSERT.value: "set", Op.RETRACT.value: "taken back", Op.REINSTATE.value: "brought back"}[event["op"]]
    return {
        "at": event["asserted_at"],
        "did": did,
        "value": value,
        "by": by,
        "reason": (event["reason"] or "").replace("_", " "),
        "run_id": event["run_id"],
        "kind": kinds.get(event["run_id"], ""),
    }
