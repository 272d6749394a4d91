"""Compares two runs: what went in, what they counted and decided, their certificates, and the values that they wrote.

Reads the tables `runs` and `attribute_values` alone, without Spark. A backfill counts with its chunks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.coverage_groups import COVERAGE_KEY
from catalog_enrichment.enrichment.outcomes import REASONS_KEY, entries, without_value
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.records import Op, RunKind, RunStatus, flatten_keys
from catalog_enrichment.report import run_sections

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Dictionary

ATTRIBUTE_VALUES = "attribute_values"

EXAMPLES = 5
"""Products of each kind that are listed per attribute unless another number is asked for."""

_COLUMNS = ("run_id", "parent_run_id", "kind", "status", "model_name", "model_version", "config_hash", "config",
            "window", "input_fingerprint", "counts", "seconds", "started_at", "finished_at", "error")  # fmt: skip
_FACTS = ("kind", "status", "model_name", "model_version", "config_hash", "window", "input_fingerprint")
_NUMBERS = ("merchant", "written", "values_written", "suggested", "abstained", "retracted", "coverage_before",
            "coverage_after")  # fmt: skip
KINDS = ("same", "differing", "only_a", "only_b")
"""The kinds of products in the comparison of written values."""

Both = list[Any]
"""A fact of the first run and of the second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRun:
    row: Mapping[str, Any]
    """Its row in `runs`; of a backfill with the sums of its chunks."""
    attributes: Mapping[str, Any]
    """The column `attributes`."""
    run_ids: tuple[str, ...]
    """The runs whose events are its values: itself, or its chunks."""

    @property
    def decisions(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.attributes.get("decisions", {})
        return found

    @property
    def writes_values(self) -> bool:
        return self.row["kind"] in (RunKind.ENRICH, RunKind.BACKFILL) and runs.has_succeeded(self.row)


def compare_runs(
    catalog: Catalog, a: str, b: str, examples: int = EXAMPLES, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Return the comparison of the runs ``a`` and ``b`` as plain data; every pair is [of a, of b].

    ``examples``: products per attribute and kind of difference; ``config``: options of a command in a message. Raises
    ConfigError for a run that the catalog does not know.
    """
    first, second = (_find(catalog, run_id, config) for run_id in (a, b))
    names = dict.fromkeys([*first.decisions, *second.decisions])
    return {
        "status": RunStatus.SUCCEEDED,
        "runs": [_facts(first), _facts(second)],
        "inputs": _inputs(first, second),
        "counts": _pairs(dict(first.row["counts"] or {}), dict(second.row["counts"] or {})),
        "attributes": {name: _attribute(first.decisions.get(name), second.decisions.get(name)) for name in names},
        "certificates": _certificates(first.attributes, second.attributes),
        "values": _values(catalog, first, second, examples) if first.writes_values and second.writes_values else {},
    }


def _find(catalog: Catalog, run_id: str, config: Sequence[str]) -> ComparedRun:
    """Return a run by its succeeded attempt; where none has succeeded by the newest."""
    rows = runs.rows(catalog, _COLUMNS) if catalog.version(runs.TABLE) >= 0 else []
    attempts = [row for row in rows if row["run_id"] == run_id]
    if not attempts:
        raise ConfigError(
            f"no run {run_id!r} in {catalog.location(runs.TABLE)}; the ids of all runs: "
            f"{command('list_runs', [*config, '--last', '100'])}"
        )
    row = next(filter(runs.has_succeeded, attempts), attempts[-1])
    chunks = runs.by_backfill(rows).get(run_id, []) if row["kind"] == RunKind.BACKFILL else []
    runs.add_attributes(catalog, [row, *chunks])
    if row["kind"] == RunKind.BACKFILL:
        row = run_sections.backfill_row(row, chunks)
    ids = tuple(chunk["run_id"] for chunk in chunks) if row["kind"] == RunKind.BACKFILL else (run_id,)
    return ComparedRun(row=row, attributes=runs.attributes(row), run_ids=ids)


def _facts(run: ComparedRun) -> dict[str, Any]:
    row = run.row
    return {
        **{name: row[name] for name in ("run_id", "parent_run_id", *_FACTS, "error")},
        "dictionary": run.attributes.get(COVERAGE_KEY, {}).get("dictionary"),
        "started_at": row["started_at"].isoformat(),
        "finished_at": row["finished_at"].isoformat(),
    }


def _inputs(first: ComparedRun, second: ComparedRun) -> dict[str, Both]:
    """Return the inputs that differ: facts of the runs, and keys of their configs."""
    a, b = _facts(first), _facts(second)
    found = {name: [a[name], b[name]] for name in (*_FACTS, "dictionary") if a[name] != b[name]}
    configs = [flatten_keys(json.loads(run.row["config"] or "{}")) for run in (first, second)]
    if all(configs):
        found |= {f"config {name}": both for name, both in _pairs(*configs).items() if both[0] != both[1]}
    return found


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Both]:
    return {name: [a.get(name), b.get(name)] for name in sorted({*a, *b})}


def _attribute(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the numbers of an attribute, decided products by reason, and products without any value by reason."""
    both = [a or {}, b or {}]
    by_reason: list[dict[str, int]] = []
    for numbers in both:
        counted: dict[str, int] = {}
        for decision, reason, _, products in entries(numbers.get(REASONS_KEY) or {}):
            counted[f"{decision} {reason}"] = counted.get(f"{decision} {reason}", 0) + products
        by_reason.append(counted)
    return {
        **{name: [numbers.get(name) for numbers in both] for name in _NUMBERS},
        "reasons": _pairs(*by_reason),
        "without_value": _pairs(*(without_value(numbers) for numbers in both)),
    }


def _certificates(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return per attribute, modality path and compute type the certificates of both runs, None for none."""
    found: dict[tuple[str, str, str], list[Certificate | None]] = {}
    for place, attributes in enumerate((a, b)):
        for content in attributes.get("certificates", []):
            issued = Certificate.from_dict(content)
            key = (issued.attribute, claim.PATHS[issued.modality], issued.compute_type)
            found.setdefault(key, [None, None])[place] = issued
    return [
        {
            "attribute": attribute,
            "products": products,
            "compute_type": compute_type,
            "same": len({of and of.certificate_id for of in pair}) == 1,
            "threshold": [of and of.threshold for of in pair],
            "lower_bound": [of.lower_bound if of and of.threshold is not None else None for of in pair],
            "certificate_id": [of and of.certificate_id for of in pair],
        }
        for (attribute, products, compute_type), pair in sorted(found.items())
    ]


# --- written values ---------------------------------------------------------------------------------------------------


def _values(catalog: Catalog, a: ComparedRun, b: ComparedRun, examples: int) -> dict[str, dict[str, Any]]:
    """Return attribute -> products by kind (:data:`KINDS`), and ``examples`` of each kind but "same"."""
    import pyarrow as pa
    import pyarrow.compute as pc

    key = ["product_id", "attribute"]
    both = _written(catalog, a.run_ids).join(
        _written(catalog, b.run_ids), key, join_type="full outer", left_suffix="_a", right_suffix="_b"
    )
    in_a, in_b = pc.is_valid(both["values_a"]), pc.is_valid(both["values_b"])
    is_same = _same(both, catalog.dictionary)
    kind = pc.case_when(pc.make_struct(is_same, pc.and_(in_a, in_b), in_a), "same", "differing", "only_a", "only_b")
    both = both.append_column("kind", kind if isinstance(kind, pa.ChunkedArray) else pa.chunked_array([kind]))
    found: dict[str, dict[str, Any]] = {}
    for row in both.group_by(["attribute", "kind"]).aggregate([([], "count_all")]).to_pylist():
        found.setdefault(row["attribute"], dict.fromkeys(KINDS, 0))[row["kind"]] = row["count_all"]
    for name, numbers in sorted(found.items()):
        of_attribute = both.filter(pc.equal(both["attribute"], name))
        numbers["examples"] = [
            {"kind": kind, **row}
            for kind in KINDS[1:]
            for row in _examples(of_attribute.filter(pc.equal(of_attribute["kind"], kind)), examples)
        ]
    return dict(sorted(found.items()))


def _same(both: pa.Table, dictionary: Dictionary) -> pa.Array:
    """Return whether both runs wrote the same values, by the kind of the attribute; false where one wrote none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    equal = pc.fill_null(pc.equal(both["values_a"], both["values_b"]), False)
    rows = zip(*(both[name].to_pylist() for name in ("attribute", "values_a", "values_b")), equal.to_pylist(),
               strict=True)  # fmt: skip
    return pa.array([same or bool(a and b and dictionary.is_same(name, a, b)) for name, a, b, same in rows], pa.bool_())


def _examples(products: pa.Table, most: int) -> list[dict[str, Any]]:
    """Return the first ``most`` products by id, with the values of both runs."""
    rows = products.sort_by("product_id").slice(0, most).to_pylist()
    return [
        {
            "product_id": row["product_id"],
            "values": [None if row[name] is None else row[name].split(_BETWEEN) for name in ("values_a", "values_b")],
        }
        for row in rows
    ]


_BETWEEN = "\x1f"
"""Between the values of a product in one text: a control character, which no value has."""


def _written(catalog: Catalog, run_ids: Collection[str]) -> pa.Table:
    """Return ``product_id``, ``attribute`` and ``values``: the sorted values that the runs wrote, as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["product_id", "attribute", "value", "run_id", "op"]
    empty = pa.table({name: pa.array([], pa.string()) for name in columns})
    tables = [empty]
    if catalog.version(ATTRIBUTE_VALUES) >= 0 and run_ids:
        for batch in catalog.scan(ATTRIBUTE_VALUES, columns):
            wanted = pc.and_(pc.is_in(batch["run_id"], pa.array(list(run_ids))), pc.equal(batch["op"], Op.ASSERT.value))
            tables.append(pa.Table.from_batches([batch.filter(wanted)]).select(columns).cast(empty.schema))
    events = pa.concat_tables(tables).sort_by([(name, "ascending") for name in columns[:3]])
    sets = events.group_by(columns[:2], use_threads=False).aggregate([("value", "list")])
    return pa.table(
        {
            "product_id": sets["product_id"],
            "attribute": sets["attribute"],
            "values": pc.binary_join(sets["value_list"], _BETWEEN),
        }
    )
