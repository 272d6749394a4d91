"""The table `switches`, read and written here alone: what a person, an audit or a drift check switched off.

    paused   nothing new is written, and written values stay (the reason of the decisions is `paused`)
    off      the same, and what models wrote is retracted by the next run that looks at the product
    on       as if there had never been a switch

The table is append-only; the newest row of a scope, attribute and target counts. Writing a row needs no lock, so that a
switch can be thrown while a run is going on: the run reads the table again before it stores its decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catalog_enrichment.records import stable_hash, strictly_later

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

TABLE = "switches"

_PLAIN = ("who", "why", "at", "run_id")
"""Columns that a :class:`Switch` has as they are."""


class Scope(StrEnum):
    """The kind of thing that a switch is about."""

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
    """For the scopes in :data:`OF_ATTRIBUTE`; empty for the others."""
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
        """Name the scope and target, e.g. ``value color = Navy Blue``."""
        if self.scope is Scope.ATTRIBUTE:
            return f"attribute {self.attribute}"
        of = f"{self.attribute} = " if self.scope is Scope.VALUE else f"{self.attribute} " if self.attribute else ""
        return f"{self.scope.value} {of}{self.target}"


@dataclass(frozen=True, slots=True)
class Switches:
    """The switches that are not on."""

    entries: tuple[Switch, ...] = ()

    def identity(self) -> list[tuple[str, ...]]:
        """Return the part that a decision rests on, sorted."""
        return sorted((*switch.key, switch.state.value) for switch in self.entries)

    def of(self, scope: Scope, *states: State) -> list[Switch]:
        """Return the switches of one scope that are in one of ``states``."""
        return [switch for switch in self.entries if switch.scope is scope and switch.state in states]

    def targets(self, scope: Scope, *states: State) -> list[str]:
        return sorted(switch.target for switch in self.of(scope, *states))

    def off_attributes(self) -> frozenset[str]:
        return frozenset(switch.attribute for switch in self.of(Scope.ATTRIBUTE, State.OFF))

    def with_more(self, more: Iterable[Switch]) -> Switches:
        """Return these and ``more``, which are not written yet."""
        return Switches(_newest([*self.entries, *more]))


def stratum_name(modality: str, language: str, category: str) -> str:
    """Return the target of a stratum: modality path, language and first-level category, "" for none."""
    return f"{modality}/{language}/{category.partition('/')[0]}"


def read(catalog: Catalog) -> Switches:
    """Return what is not on now, without Spark."""
    return Switches(_newest(history(catalog)))


def history(catalog: Catalog) -> list[Switch]:
    """Return every row, oldest first; a value has the name in force."""
    switches = [
        Switch(
            scope=Scope(row["scope"]),
            attribute=row["attribute"] or "",
            target=catalog.names.now(row["attribute"], row["target"]) if row["scope"] == Scope.VALUE else row["target"],
            state=State(row["state"]),
            **{name: row[name] for name in _PLAIN},
        )
        for batch in catalog.scan(TABLE)
        for row in batch.to_pylist()
    ]
    return sorted(switches, key=lambda switch: str(switch.at))


def write(catalog: Catalog, switches: Sequence[Switch], label: str = "") -> list[Switch]:
    """Append the rows, in order, one microsecond apart, without those that change nothing. Return the rows written.

    A run does not pause what somebody has switched off: what models wrote there is to go, and not to stay.

    ``label``: the id under which the same rows are written once only (a run's id); without it they are new.
    """
    if label and catalog.committed(TABLE, label):
        return []
    past = history(catalog)
    now = {switch.key: switch.state for switch in _newest(past)}
    last, written = (past[-1].at if past else None), []
    for switch in switches:
        was = now.get(switch.key, State.ON)
        if was is switch.state or (switch.run_id and (was, switch.state) == (State.OFF, State.PAUSED)):
            continue
        now[switch.key] = switch.state
        last = strictly_later(datetime.now(UTC), last)
        written.append(replace(switch, at=last))
    rows = [_to_row(switch) for switch in written]
    if rows or label:
        catalog.append_rows(TABLE, rows, label or stable_hash(TABLE, rows))
    return written


def _newest(switches: Iterable[Switch]) -> tuple[Switch, ...]:
    """Return the last switch of each key, where it is not on."""
    last = {switch.key: switch for switch in switches}
    return tuple(switch for _, switch in sorted(last.items()) if switch.state is not State.ON)


def _to_row(switch: Switch) -> dict[str, Any]:
    assert switch.at is not None
    return {
        "switch_id": stable_hash(*switch.key, switch.state.value, switch.at.isoformat()),
        "scope": switch.scope.value,
        "attribute": switch.attribute or None,
        "target": switch.target,
        "state": switch.state.value,
        **{name: getattr(switch, name) for name in _PLAIN},
    }
