"""Histories of a small catalog without Spark: what readers see after imports, runs, rollbacks and corrections.

The state is worked out in plain Python and committed to a real Delta table, a version per act, as the jobs do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from catalog_enrichment.catalog.delta_tables import names_of
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.delivery.differences import TABLE
from catalog_enrichment.delivery.feed import Position

from ..catalog.catalog_rows import parts_of

START = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)

Key = tuple[str, str]
State = dict[Key, dict[str, Any]]
"""(product, attribute) -> the other columns of `current_values`."""


def value(*values: str, source: str = "model", run_id: str | None = "run-1", step: int = 1) -> dict[str, Any]:
    """What readers see of a product and attribute."""
    of_model = source == "model"
    return {
        "values": list(values),
        "number": None,
        "unit": None,
        "source": source,
        "run_id": None if source == "merchant" else run_id,
        "model_version": str(step) if of_model else None,
        "certificate_id": f"certificate-{step}" if of_model else None,
        "asserted_at": None if source == "merchant" else START + timedelta(minutes=step),
    }


class Versions:
    """A catalog whose table `current_values` gets the versions that a test wants."""

    def __init__(self, folder: Path) -> None:
        self.catalog = Catalog(folder)
        self.numbers = 0

    def show(self, state: Mapping[Key, Mapping[str, Any]], run_id: str, files: int = 2) -> Position:
        """Commit ``state``, in ``files`` files, as the run ``run_id`` does; the position of a consumer that has it."""
        rows = [{"product_id": key[0], "attribute": key[1], **row} for key, row in state.items()]
        delta = self.catalog.tables.create(TABLE)
        parts = [part for number in range(files) for part in parts_of(self.catalog, TABLE, *rows[number::files])]
        self.numbers += 1
        sources = {"products": self.numbers, "attribute_values": self.numbers}
        assert self.catalog.tables.commit(delta, parts, run_id, sources, replaced=names_of(delta))
        return self.position()

    def show_twice(self, state: Mapping[Key, Mapping[str, Any]], key: Key) -> None:
        """Commit ``state``, as another program may do: with two rows of ``key``."""
        self.show(state, "run-n")
        row = {"product_id": key[0], "attribute": key[1], **state[key]}
        self.catalog.append_rows(TABLE, [row], "of-another-program")

    def position(self) -> Position:
        return Position(str(self.catalog.tables.identity(TABLE)), self.catalog.version(TABLE))

    def seen(self, version: int | None = None) -> State:
        """What readers see, read as they do."""
        rows = [row for batch in self.catalog.scan(TABLE, version=version) for row in batch.to_pylist()]
        return {(row.pop("product_id"), row.pop("attribute")): row for row in rows}


def applied(state: State, rows: Iterable[Mapping[str, Any]]) -> State:
    """What a consumer has after the rows of a file. It fails where a delete finds nothing."""
    state = dict(state)
    for row in rows:
        key = (row["product_id"], row["attribute"])
        match row["op"]:
            case "reset":
                state = {}
            case "upsert":
                state[key] = {name: row[name] for name in value("x")}
            case "delete":
                del state[key]
            case other:
                assert other == "end"
    return state


@dataclass
class World:
    """Products, merchants' values and the acts of runs and people, from which follows what readers see."""

    products: set[str] = field(default_factory=set)
    opted_out: set[str] = field(default_factory=set)
    merchant: dict[Key, list[str]] = field(default_factory=dict)
    acts: list[tuple[str, int, str, dict[Key, list[str]]]] = field(default_factory=list)
    """Run id, step, source and values."""
    undone: set[str] = field(default_factory=set)

    def seen(self) -> State:
        state: State = {}
        for run_id, step, source, values in sorted(self.acts, key=lambda act: (act[2] == "human", act[1])):
            for key, given in values.items():
                hidden = source == "model" and key[0] in self.opted_out
                if run_id not in self.undone and key[0] in self.products and not hidden:
                    state[key] = value(*given, source=source, run_id=run_id, step=step)
        state |= {
            key: value(*given, source="merchant") for key, given in self.merchant.items() if key[0] in self.products
        }
        return {key: row for key, row in state.items() if row["values"]}

    def act(self, kind: str, chosen: Iterable[str], step: int) -> None:
        """An act about the ``chosen`` products."""
        chosen = sorted(chosen)
        colour = ("Red", "Green", "Blue")[step % 3]
        values = {(product, ("color", "material")[step % 2]): [colour] for product in chosen}
        match kind:
            case "arrive":
                self.products |= set(chosen)
            case "vanish":
                self.products -= set(chosen)
            case "merchant":
                self.merchant |= values
            case "merchant_removes":
                self.merchant = {key: given for key, given in self.merchant.items() if key[0] not in chosen}
            case "opt_out":
                self.opted_out ^= set(chosen)
            case "run":
                self.acts.append((f"run-{step}", step, "model", values))
            case "correct":
                self.acts.append((f"person-{step}", step, "human", values))
            case "remove":
                self.acts.append((f"person-{step}", step, "human", {key: [] for key in values}))
            case "roll_back":
                self.undone ^= {act[0] for act in self.acts[-2:-1]}


KINDS = ("arrive", "vanish", "merchant", "merchant_removes", "opt_out", "run", "correct", "remove", "roll_back")
