"""The names by which readers see values that the dictionary renamed (contract `renames`).

Stored rows keep the name that they were written with. Catalog.read and Catalog.scan give the name in force, so that
merchants' values, the ledger, predictions, verdicts and labels follow a rename at once, and a rollback of it brings
back exactly the names from before. `current_values` is derived again, and consumers follow it. :mod:`renames` writes
the events. An event whose name is its value ends an earlier rename: the dictionary lists the name as a value again, and
rows that were stored with it have it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.dictionary import Dictionary

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

TABLE = "renames"

VALUE_COLUMNS = {
    "attribute_values": ("value",),
    "predictions": ("value",),
    "self_derived": ("value",),
    "audits": ("value",),
    "verdicts": ("value", "right_values"),
}
"""Table -> its columns with values of the attribute in the column `attribute`. The products' values are in a map; a row
of `current_values` has the names that were in force when it was derived."""

_MERCHANT = "merchant_attributes"


class Event(NamedTuple):
    """A name that stored rows have, and the name that readers see in place of it."""

    attribute: str
    was: str
    value: str


@dataclass(frozen=True, slots=True)
class Names:
    """The names in force."""

    current: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(attribute, stored name) -> the name in force, of every name that an event in force is about."""

    def now(self, attribute: str, name: str) -> str:
        """Return what the value with this stored name is called now."""
        return self.current.get((attribute, name), name)

    def differing(self) -> dict[tuple[str, str], str]:
        """Return (attribute, stored name) -> the name in force, where it is another name."""
        return {(attribute, was): value for (attribute, was), value in self.current.items() if was != value}

    def in_verdict(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of `verdicts`, made from a sample of any age, with the names in force."""
        name = row["attribute"]
        right = list(dict.fromkeys(self.now(name, value) for value in row["right_values"]))
        return {**row, "value": self.now(name, row["value"]), "right_values": right}

    def with_events(self, events: Iterable[Event]) -> Names:
        """Return the names after ``events``, oldest first: an event gives its value to every name that is called its
        old name by then. A value that is called otherwise itself, because a rollback says so, stands for that name."""
        current = dict(self.current)
        for attribute, was, value in events:
            name = current.get((attribute, value), value) if was != value else value
            if name == was:  # the event turns an earlier rename round
                name = value
            if was != value:
                current.update({key: name for key, now in current.items() if key[0] == attribute and now == was})
            current[attribute, was] = name
        return Names(current)


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """What a dictionary means in a catalog whose values may have been stored under other names."""

    dictionary: Dictionary
    """The dictionary, with the names of the renames that a person rolled back."""
    names: Names
    """The names in force, also by ``pending``."""
    pending: tuple[Event, ...] = ()
    """Events that no run has written yet."""
    rolled_back: tuple[tuple[Event, str], ...] = ()
    """Events that the dictionary asks for and a person rolled back, with the run that had written each."""

    def warnings(self) -> list[str]:
        """Return a sentence per event that is not written because it was rolled back."""
        return [
            f"{event.attribute}: {said(event)} was rolled back (run {run_id}) and is not done again. Roll back that "
            "rollback, or take it out of the dictionary"
            for event, run_id in self.rolled_back
        ]


def follow(rows: Sequence[Mapping[str, Any]], dictionary: Dictionary) -> Followed:
    """Return what ``dictionary`` means in the catalog with these ``rows`` of the table `renames`."""
    done, undone = replayed(rows)
    names = Names().with_events(done)
    wanted = _wanted(dictionary, names, {(event.attribute, event.was): event.value for event in done})
    refused = [event for event in wanted if event in undone]
    pending = tuple(event for event in wanted if event not in undone)
    names = names.with_events(pending)
    attributes = dict(dictionary.attributes)
    for event in refused:
        name = names.now(event.attribute, event.was)
        attributes[event.attribute] = attributes[event.attribute].with_name(event.was, name)
    for (attribute, name), value in names.differing().items():
        # a name in force is a spelling also where the file does not say "was" any more, unless it says something else
        if attribute in attributes and not attributes[attribute].has_spelling(name):
            attributes[attribute] = attributes[attribute].with_name(name, value)
    return Followed(
        dictionary=Dictionary(attributes),
        names=names,
        pending=pending,
        rolled_back=tuple((event, undone[event]) for event in refused),
    )


def in_force(rows: Sequence[Mapping[str, Any]]) -> Names:
    """Return the names in force by ``rows`` of the table `renames`."""
    return Names().with_events(replayed(rows)[0])


def _wanted(dictionary: Dictionary, names: Names, own: Mapping[tuple[str, str], str]) -> list[Event]:
    """Return the events after which the names in force are those of the dictionary.

    A name that is called by a value which the dictionary does not list is itself again. ``own``: (attribute, name) ->
    value, by the newest event in force about it. An earlier name has an event of its own also where it follows another:
    a rollback of the other does not undo it.
    """
    attributes = dictionary.attributes.values()
    listed = {(attribute.name, value) for attribute in attributes for value in attribute.values}
    earlier = {(attribute.name, was): value for attribute in attributes for was, value in attribute.was.items()}
    again = [key for key, value in names.differing().items() if key not in earlier and (key[0], value) not in listed]
    again += [key for key in sorted(listed) if names.now(*key) != key[1] and key not in again]
    events = [Event(attribute, name, name) for attribute, name in again]
    return events + [Event(*key, value) for key, value in earlier.items() if own.get(key) != value]


def replayed(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Event], dict[Event, str]]:
    """Return the events in force, oldest first, and those undone -> the run that had written each last."""
    ordered, undone = _in_order(rows), undone_runs(rows)
    own = [(event_of(row), row) for row in ordered if row["undoes"] is None]
    in_force = [event for event, row in own if (row["run_id"], row["attribute"]) not in undone]
    gone = {event: row["run_id"] for event, row in own if (row["run_id"], row["attribute"]) in undone}
    newest = {(event.attribute, event.was): event for event in in_force}
    return in_force, {event: run_id for event, run_id in gone.items() if newest.get(event[:2]) != event}


def event_of(row: Mapping[str, Any]) -> Event:
    return Event(row["attribute"], row["was"], row["value"])


def said(event: Event) -> str:
    """Return what the event says of its name, after a verb."""
    if event.was == event.value:
        return f"that {event.value!r} is a value of its own again"
    return f"that {event.was!r} is called {event.value!r}"


def undone_runs(rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Return (run id, attribute) of everything that a rollback took back which is itself in force."""
    undone: set[tuple[str, str]] = set()
    for row in reversed(_in_order(rows)):
        if row["undoes"] is not None and (row["run_id"], row["attribute"]) not in undone:
            undone.add((row["undoes"], row["attribute"]))
    return undone


def _in_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows, oldest first; of a run first the names that are values of their own again."""
    return sorted(rows, key=lambda row: (row["renamed_at"], row["run_id"], row["was"] != row["value"], row["was"]))


# --- tables with the names in force -----------------------------------------------------------------------------------


def has_values(table: str) -> bool:
    """Return whether rows of the table have values that may have been renamed."""
    return table == "products" or table in VALUE_COLUMNS


def frame_with_names(table: str, frame: DataFrame, names: Names) -> DataFrame:
    """Return the rows of ``table`` with the names in force, without Python in the tasks."""
    from pyspark.sql import functions as F

    given = names.differing()
    if not given:
        return frame
    pairs = [(_key(*name), value) for name, value in sorted(given.items())]
    lookup = F.create_map(*[F.lit(text) for pair in pairs for text in pair])

    def now(attribute: Column, value: Column) -> Column:
        return F.coalesce(F.try_element_at(lookup, F.concat(attribute, F.lit(_BETWEEN), value)), value)

    def all_now(attribute: Column, values: Column) -> Column:
        return F.array_distinct(F.transform(values, lambda value: now(attribute, value)))

    for name in set(VALUE_COLUMNS.get(table, ())) & set(frame.columns):
        is_list = frame.schema[name].dataType.simpleString().startswith("array")
        frame = frame.withColumn(name, (all_now if is_list else now)(F.col("attribute"), F.col(name)))
    if table == "products" and _MERCHANT in frame.columns:
        frame = frame.withColumn(_MERCHANT, F.transform_values(_MERCHANT, all_now))
    return frame


def batch_with_names(table: str, batch: pa.RecordBatch, names: Names) -> pa.RecordBatch:
    """Do as :func:`frame_with_names` for a batch. Rows with values need their column `attribute`."""
    import pyarrow as pa

    if not names.differing():
        return batch

    def all_now(attribute: str, values: Sequence[str | None] | None) -> list[str | None] | None:
        return None if values is None else list(dict.fromkeys(now(attribute, value) for value in values))

    def now(attribute: str, value: str | None) -> str | None:
        return None if value is None else names.now(attribute, value)

    def replaced(name: str, rows: list[Any]) -> None:
        nonlocal batch
        field = batch.schema.field(name)
        batch = batch.set_column(batch.schema.get_field_index(name), field, pa.array(rows, field.type))

    for name in set(VALUE_COLUMNS.get(table, ())) & set(batch.schema.names):
        pairs = zip(batch.column("attribute").to_pylist(), batch.column(name).to_pylist(), strict=True)
        replaced(name, [all_now(*pair) if isinstance(pair[1], list) else now(*pair) for pair in pairs])
    if table == "products" and _MERCHANT in batch.schema.names:
        rows = batch.column(_MERCHANT).to_pylist()
        replaced(_MERCHANT, [row and [(name, all_now(name, values)) for name, values in row] for row in rows])
    return batch


_BETWEEN = "\n"
"""Between attribute and value in a key: no attribute's name has it."""


def _key(attribute: str, was: str) -> str:
    return attribute + _BETWEEN + was
