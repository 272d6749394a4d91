"""The checks after every night: the invariants I1 to I7, and a replay of the ledger from its first event.

Everything is computed again here from the tables' rows, in plain Python: nothing of the product's ledger is used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .project import Ended, Project
from .world import Key, World

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What readers see of a product and attribute."""

    values: tuple[str, ...]
    source: str
    run_id: str | None


@dataclass
class Tables:
    """The rows of the catalog's tables after a night, with the names that values have today."""

    products: list[Row]
    events: list[Row]
    predictions: list[Row]
    runs: list[Row]
    view: dict[Key, Seen]
    by_id: dict[str, Row] = field(init=False)

    def __post_init__(self) -> None:
        self.by_id = {event["event_id"]: event for event in self.events}

    @classmethod
    def of(cls, project: Project) -> Tables:
        shown = {
            (row["product_id"], row["attribute"]): Seen(tuple(row["values"]), row["source"], row["run_id"])
            for row in project.table("current_values")
        }
        names = ("products", "attribute_values", "predictions", "runs")
        return cls(*(project.table(name) for name in names), view=shown)

    def model_values(self) -> dict[Key, str]:
        """Return the visible model values."""
        return {key: seen.values[0] for key, seen in self.view.items() if seen.source == "model"}


def check(tables: Tables, project: Project, world: World) -> None:
    """Raise AssertionError for the first invariant that does not hold."""
    products, expected = [row["product_id"] for row in tables.products], set(world.stored())
    assert len(products) == len(set(products)), "a product is there twice"
    assert set(products) == expected, (
        f"products of the catalog or the shop alone: {sorted(set(products) ^ expected)[:5]}"
    )
    active = replay(tables.events)
    shown = readers_view(tables.products, active)
    _same(shown, tables.view, "the replay and current_values")
    _check_merchants(tables, world)
    _check_certificates(tables, active, project, world)
    _check_runs(tables, active, project)


def _same(expected: Mapping[Any, Any], found: Mapping[Any, Any], what: str) -> None:
    other = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    told = [f"{key}: {expected.get(key)} and {found.get(key)}" for key in sorted(other)[:5]]
    assert not other, f"{what} differ at {len(other)}: {told}"


# --- the replay -------------------------------------------------------------------------------------------------------


def replay(events: Iterable[Row]) -> list[Row]:
    """Return the active asserts: in force, and not retracted by the last act in force that no rollback made."""
    by_assert: dict[str, list[Row]] = defaultdict(list)
    undoers: dict[str, list[str]] = defaultdict(list)
    asserts = []
    for event in events:
        if event["undoes"]:
            undoers[event["undoes"]].append(event["event_id"])
        if event["op"] == "assert":
            asserts.append(event)
        else:
            by_assert[event["refers_to"]].append(event)

    def in_force(event_id: str) -> bool:
        return not any(in_force(undoer) for undoer in undoers[event_id])

    def is_active(event: Row) -> bool:
        acts = [act for act in by_assert[event["event_id"]] if not act["undoes"] and in_force(act["event_id"])]
        last = max(acts, key=lambda act: (act["asserted_at"], act["run_id"]), default=None)
        return in_force(event["event_id"]) and (last is None or last["op"] == "reinstate")

    return [event for event in asserts if is_active(event)]


def readers_view(products: Sequence[Row], active: Iterable[Row]) -> dict[Key, Seen]:
    """Return what readers have to see: the merchant's set, else the newest person's, else the newest run's."""
    view: dict[Key, Seen] = {}
    sets: dict[Key, dict[tuple[bool, Any, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for event in active:
        order = (event["source"] == "human", event["asserted_at"], event["run_id"])
        sets[event["product_id"], event["attribute"]][order].append(event)
    hidden = {row["product_id"]: bool(row["opt_out"]) for row in products}
    for key, of_key in sets.items():
        if key[0] not in hidden:
            continue
        orders = [order for order in of_key if order[0] or not hidden[key[0]]]
        if orders:
            newest = of_key[max(orders)]
            values = tuple(sorted({event["value"] for event in newest}))
            if values != ("",):  # a person said that there is none
                view[key] = Seen(values, newest[0]["source"], newest[0]["run_id"])
    for row in products:
        for name, values in row["merchant_attributes"] or ():
            if values:
                view[row["product_id"], name] = Seen(tuple(sorted(set(values))), "merchant", None)
    return view


# --- the invariants ---------------------------------------------------------------------------------------------------


def _check_merchants(tables: Tables, world: World) -> None:
    """I1: what merchants gave is what readers see of them, by the dictionary of today, and nothing else is."""
    given = {key: (value,) for key, value in world.merchant_values().items()}
    merchants = {key: seen.values for key, seen in tables.view.items() if seen.source == "merchant"}
    _same(given, merchants, "I1: merchants' values and what readers see")


def _check_certificates(tables: Tables, active: Sequence[Row], project: Project, world: World) -> None:
    """I2: every active model value has a certificate of its version that allows it, and no reader sees a value in a
    category that its certificate does not cover."""
    category = {row["product_id"]: row["category"] or "" for row in tables.products}
    for event in active:
        if event["source"] != "model":
            continue
        known = project.certificates(event["model_version"]).get(event["certificate_id"])
        about = f"I2: {event['attribute']} = {event['value']} of {event['product_id']} (run {event['run_id']})"
        assert known is not None, f"{about} has no certificate"
        allowed = {world.words.canonical(known.attribute, value) for value in known.values}
        assert (known.attribute, known.modality.value) == (event["attribute"], event["modality"]), about
        assert event["value"] in allowed, f"{about}: the certificate has {sorted(map(str, allowed))}"
        assert known.threshold is not None, about
        assert event["threshold"] == known.threshold, about
        assert event["score"] >= known.threshold, about
        seen = tables.view.get((event["product_id"], event["attribute"]))
        if seen and seen.run_id == event["run_id"]:
            assert category[event["product_id"]] in known.categories, f"{about}: {category[event['product_id']]}"
        assert known.issued_at <= event["asserted_at"] < known.expires_at, about


def _check_runs(tables: Tables, active: Sequence[Row], project: Project) -> None:
    """I3, I4, I6, I7: a version per run, a commit per run, a row per run, and counts that add up."""
    runs = {row["run_id"]: row for row in tables.runs if row["status"] == "succeeded"}
    versions: dict[str, set[Any]] = defaultdict(set)
    for row in (*tables.predictions, *(event for event in tables.events if event["op"] == "assert")):
        if row["model_version"]:
            versions[row["run_id"]].add(row["model_version"])
    for run_id, of_run in versions.items():
        assert of_run == {runs[run_id]["model_version"]}, f"I3: {run_id} has rows of the versions {of_run}"
    commits = Counter(project.commits("attribute_values"))
    for run_id in {event["run_id"] for event in tables.events}:
        assert commits[run_id] == 1, f"I4: {run_id} has {commits[run_id]} commits in the ledger"
        assert run_id in runs, f"I6: {run_id} has no row in the table runs"
    for event in active:
        named = event["model_version"] and event["certificate_id"] if event["source"] == "model" else True
        assert named, f"I6: {event['event_id']} does not name its version and certificate"


def check_import(ended: Ended, rows: int) -> None:
    """I7: the rows of the feed are counted once each."""
    found = ended.summary
    counted = found["new"] + found["changed"] + found["unchanged"] + sum(found["quarantined"].values())
    assert counted + found.get("deletions", 0) == rows == found["products"], f"I7: {counted} of {rows}: {found}"


def check_enrichment(ended: Ended, tables: Tables) -> None:
    """I7: products = predicted + skipped + quarantined, and per attribute what was decided."""
    found = ended.summary
    counted = found["predicted"] + found["skipped"] + sum(found["quarantined"].values())
    assert counted == found["products"] == len(tables.products), f"I7: {counted} of {len(tables.products)}: {found}"
    decided: dict[str, set[str]] = defaultdict(set)
    for row in tables.predictions:
        if row["run_id"] == found["run_id"]:
            decided[row["attribute"]].add(row["product_id"])
    for name, numbers in found["attributes"].items():
        total = numbers["written"] + numbers["suggested"] + numbers["abstained"]
        assert total == len(decided[name]), f"I7: {name} decided {len(decided[name])} products and counts {numbers}"
