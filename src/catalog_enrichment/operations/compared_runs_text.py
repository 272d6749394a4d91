"""The comparison of two runs (:mod:`compare_runs`) as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from catalog_enrichment.monitoring.text_tables import Column, aligned_table, count, text
from catalog_enrichment.operations.compare_runs import KINDS, Both

CHARACTERS = 60
"""Length to which the text of an input is cut."""


def as_text(compared: Mapping[str, Any]) -> str:
    """Return the comparison as tables: inputs that differ, counts, decisions, certificates and values."""
    blocks = [
        ("", _table(_runs(compared["runs"]), "")),
        ("inputs that differ", _table(compared["inputs"], "input") if compared["inputs"] else "none"),
        ("counts", _table(compared["counts"], "count")),
        *(block for name, numbers in compared["attributes"].items() for block in _attribute(name, numbers)),
        ("certificates", _certificates(compared["certificates"])),
        ("written values, in products", _values(compared["values"])),
        ("examples", _examples(compared["values"])),
    ]
    return "\n\n".join(f"{title}\n{body}" if title else body for title, body in blocks if body)


def _runs(facts: Sequence[Mapping[str, Any]]) -> dict[str, Both]:
    names = {"run_id": "run", "kind": "kind", "status": "status", "model_version": "model version"}
    rows = {words: [of[name] for of in facts] for name, words in names.items()}
    rows["finished (UTC)"] = [of["finished_at"][:16].replace("T", " ") for of in facts]
    return rows


def _table(pairs: Mapping[str, Both], heading: str) -> str:
    rows = [{"name": name, "a": _cell(both[0]), "b": _cell(both[1])} for name, both in pairs.items()]
    align = ">" if heading in ("count", "number", "products") else "<"
    columns = (Column(heading, text("name"), "<"), Column("A", text("a"), align), Column("B", text("b"), align))
    return aligned_table(rows, columns) if rows else ""


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    shown = str(value)
    return shown if len(shown) <= CHARACTERS else shown[: CHARACTERS - 1] + "…"


def _attribute(name: str, numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = {kind.replace("_", " "): both for kind, both in numbers.items() if isinstance(both, list)}
    for kind in ("coverage before", "coverage after"):
        shown[kind] = [None if share is None else f"{share:.1%}" for share in shown[kind]]
    reasons = {reason.replace("_", " "): both for reason, both in numbers["reasons"].items()}
    empty = {reason.replace("_", " "): both for reason, both in numbers["without_value"].items()}
    return [
        (f"{name}", _table(shown, "number")),
        (f"{name}: decided products by reason", _table(reasons, "products")),
        (f"{name}: decided products without any value", _table(empty, "products")),
    ]


def _certificates(rows: Sequence[Mapping[str, Any]]) -> str:
    def pair(name: str, form: str) -> Any:
        return lambda row: " -> ".join("-" if of is None else format(of, form) for of in row[name])

    columns = (
        Column("attribute", text("attribute"), "<"),
        Column("products", text("products"), "<"),
        Column("numbers", text("compute_type"), "<"),
        Column("written at score", pair("threshold", ".4f")),
        Column("right at least", pair("lower_bound", ".1%")),
        Column("", lambda row: "the same" if row["same"] else "", "<"),
    )
    return aligned_table(rows, columns) if rows else ""


def _values(values: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [{"attribute": name, **numbers} for name, numbers in values.items()]
    columns = [Column(kind.replace("_a", " A").replace("_b", " B"), count(kind)) for kind in KINDS]
    return aligned_table(rows, [Column("attribute", text("attribute"), "<"), *columns]) if rows else ""


def _examples(values: Mapping[str, Mapping[str, Any]]) -> str:
    def values_of(place: int) -> Any:
        return lambda row: "-" if row["values"][place] is None else ", ".join(row["values"][place])

    rows = [{"attribute": name, **example} for name, numbers in values.items() for example in numbers["examples"]]
    columns = (
        Column("attribute", text("attribute"), "<"),
        Column("product", text("product_id"), "<"),
        Column("A", values_of(0), "<"),
        Column("B", values_of(1), "<"),
    )
    return aligned_table(rows, columns) if rows else ""
