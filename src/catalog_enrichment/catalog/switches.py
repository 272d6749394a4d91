"""The table `switches`, read and written here alone: what a person, an audit or a drift check switched off.

    paused   nothing new is written; what is written stands (the reason of the decisions is `paused`)
    off      the same, and what models wrote is retracted by the next run that looks at the product
    on       as if there had never been a switch

The table is append-only; the newest row of a scope, attribute and target counts. Writing one needs no lock, so that a
switch can be thrown while a run is going on: the run reads the table again before it lands its decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catalog_enrichment.records import stable_hash, strictly_later

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

TABLE = "switches"


class Scope(StrEnum):
    """What a switch is about."""

    ATTRIBUTE = "attribute"
    CATEGORY = "category"
    """A category path with all below it, for all attributes."""
    SHOP = "shop"
    VALUE = "value"
    """One value of an attribute."""
    CERTIFICATE = "certificate"
    STRATUM = "stratum"
    """An attribute on one modality path, in one language and first-level category (:func:`stratum_name`)."""


class State(StrEnum):
    ON = "on"
    PAUSED = "paused"
    OFF = "off"


OF_ATTRIBUTE = frozenset({Scope.ATTRIBUTE, Scope.VALUE, Scope.STRATUM})
"""Scopes that name an attribute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    scope: Scope
    attribute: str = ""
    """Of :data:`OF_ATTRIBUTE`; empty for the other scopes."""
    target: str = ""
    """Category path, shop id, value, certificate id or stratum; empty for an attribute."""
    state: State
    who: str
    why: str
    at: datetime | None = None
    """UTC; None before it is written."""
    run_id: str | None = None
    """The run that found the reason; None for a person's."""

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.scope.value, self.attribute, self.target)

    def __str__(self) -> str:
        """What it is about, e.g. ``value color = Navy Blue``."""
        if self.scope is Scope.ATTRIBUTE:
            return f"attribute {self.attribute}"
        of = f"{self.attribute} = " if self.scope is Scope.VALUE else f"{self.attribute} " if self.attribute else ""
        return f"{self.scope.value} {of}{self.target}"


@dataclass(frozen=True, slots=True)
class Switches:
    """What is not on."""

    entries: tuple[Switch, ...] = ()

    def identity(self) -> list[tuple[str, ...]]:
        """The part that a decision rests on, in one order."""
        return sorted((*one.key, one.state.value) for one in self.entries)

    def of(self, scope: Scope, *states: State) -> list[Switch]:
        """Those of one scope that are in one of ``states``."""
        return [one for one in self.entries if one.scope is scope and one.state in states]

    def targets(self, scope: Scope, *states: State) -> list[str]:
        return sorted(one.target for one in self.of(scope, *states))

    def off_attributes(self) -> frozenset[str]:
        return frozenset(one.attribute for one in self.of(Scope.ATTRIBUTE, State.OFF))

    def with_more(self, more: Iterable[Switch]) -> Switches:
        """With switches that are not written yet."""
        return Switches(_newest([*self.entries, *more]))


def stratum_name(modality: str, language: str, category: str) -> str:
    """The target of a stratum: modality path, language and first-level category, "" for products without one."""
    return f"{modality}/{language}/{category.partition('/')[0]}"


def read(catalog: Catalog) -> Switches:
    """What is not on now. No Spark."""
    return Switches(_newest(history(catalog)))


def history(catalog: Catalog) -> list[Switch]:
    """Every row, oldest first."""
    rows = [row for batch in catalog.scan(TABLE) for row in batch.to_pylist()]
    return sorted((_of_row(row) for row in rows), key=lambda one: str(one.at))


def write(catalog: Catalog, switches: Sequence[Switch], label: str = "") -> list[Switch]:
    """Append the rows, in order, one microsecond apart; those that change nothing are left out. Returns the others.

    What a run pauses and somebody has switched off stays off: what models wrote there is to go, and not to stand.

    ``label``: the id under which the same rows are written once only (a run's id); without one they are new.
    """
    if label and catalog.committed(TABLE, label):
        return []
    past = history(catalog)
    now = {one.key: one.state for one in _newest(past)}
    last, written = (past[-1].at if past else None), []
    for one in switches:
        was = now.get(one.key, State.ON)
        if was is one.state or (one.run_id and (was, one.state) == (State.OFF, State.PAUSED)):
            continue
        now[one.key] = one.state
        last = strictly_later(datetime.now(UTC), last)
        written.append(replace(one, at=last))
    rows = [_to_row(one) for one in written]
    if rows or label:
        catalog.append_rows(TABLE, rows, label or stable_hash(TABLE, rows))
    return written


def _newest(switches: Iterable[Switch]) -> tuple[Switch, ...]:
    """Of each key the last one, where it is not on."""
    last = {one.key: one for one in switches}
    return tuple(one for _, one in sorted(last.items()) if one.state is not State.ON)


def _of_row(row: dict[str, Any]) -> Switch:
    return Switch(
        scope=Scope(row["scope"]),
        attribute=row["attribute"] or "",
        target=row["target"],
        state=State(row["state"]),
        **{name: row[name] for name in ("who", "why", "at", "run_id")},
    )


def _to_row(switch: Switch) -> dict[str, Any]:
    assert switch.at is not None
    return {
        "switch_id": stable_hash(*switch.key, switch.state.value, switch.at.isoformat()),
        "scope": switch.scope.value,
        "attribute": switch.attribute or None,
        "target": switch.target,
        "state": switch.state.value,
        **{name: getattr(switch, name) for name in ("who", "why", "at", "run_id")},
    }
