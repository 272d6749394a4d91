"""Hostile rows in every source format: each is found again among the products or in quarantine, once (I7).

Half of the rows are from the corpus of tests/hostile_rows.py, half are made by hypothesis. Each row has a mark, by
which it is found.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from catalog_enrichment.reasons import Reason

from .. import hostile_rows, sample_catalog
from ..hostile_rows import HostileRow
from ..sample_catalog import SampleCatalog, table
from .benchmark import PeakMemory
from .fault_catalog import SPARK, run_here
from .fault_outcomes import Outcome

FORMATS = ["jsonl", "json_files", "python_lines", "csv", "tsv", "parquet", "delta"]
COLUMNS = [
    *("shop", "product_id", "title", "description", "category", "image", "updated_at", "opt_out", "color", "material"),
]
_ANY_ROWS = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}, "severity": "critical"}
SUITE = {"name": "any_rows", "expectations": [_ANY_ROWS]}
"""An expectation on the whole snapshot refuses an import: here every row is to be judged."""

REASONS = {reason.value for reason in Reason}
BROKEN_PYTHON = ["%s", "{'shop': '%s'", "['%s']", "{'shop': '%s'} {}", "null %s", "{'shop': '%s', **{}}"]
"""Lines that are not a Python dict."""

BROKEN_CELLS = ["%s", '%s,"never closed', '%s,"closed" early', "%s" + ",x" * 40]
"""Lines that are no record of a CSV file; %s is the mark of the row."""


def generated(count: int, number: int) -> list[HostileRow]:
    """Return ``count`` rows by hypothesis: texts of the corpus and others, and any JSON where a text is expected."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | hostile_rows.texts()
    anything = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )  # fmt: skip
    text = hostile_rows.texts() | anything
    record = st.fixed_dictionaries(
        {
            "product_id": text, "title": text, "description": text, "category": text, "image": st.none(),
            "updated_at": st.sampled_from(hostile_rows.TIMES) | st.datetimes().map(str), "opt_out": text,
            "color": text, "material": st.lists(hostile_rows.texts(), max_size=3),
        },
        optional=dict.fromkeys(hostile_rows.KEYS, anything),
    )  # fmt: skip
    found: list[dict[str, Any]] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(record, min_size=8, max_size=8))
    def collect(records: list[dict[str, Any]]) -> None:
        found.extend(records)

    while len(found) < count:
        collect()
    rows = []
    for place, given_record in enumerate(found[:count]):
        mark = f"mark-{number * 10_000 + place:06d}"
        # quarantine keeps 2,000 characters of a row, and the mark is to be among them
        product_id = given_record["product_id"]
        short = product_id if len(json.dumps(product_id)) <= 100 else str(product_id)[:100]
        marked = {"shop": mark} | given_record | {"product_id": short}
        rows.append(HostileRow(mark, marked, json.dumps(marked).encode("utf-8", "replace").decode()))
    return rows


def imports(folder: Path, rows_each: int) -> Iterator[Outcome]:
    """Import ``rows_each`` rows in each format, half of them of the corpus and half generated."""
    for number, kind in enumerate(FORMATS, 1):
        outcome = Outcome(f"hostile rows, {kind}", "rows")
        rows = [*hostile_rows.sample(rows_each // 2, seed=number), *generated(rows_each // 2, number)]
        _import(folder / kind, kind, rows, outcome)
        yield outcome


def _import(folder: Path, kind: str, rows: list[HostileRow], outcome: Outcome) -> None:
    sample = sample_catalog.build(folder)
    (sample.folder / "suite.json").write_text(json.dumps(SUITE))
    path, expected = write(sample.folder / "feed", kind, rows)
    sample.file.write_text(
        sample.file.read_text().replace('"jsonl"', f'"{kind}"').replace("feed/products.jsonl", f"feed/{path}")
        .replace("[source.mapping]", 'snapshot_suite = "suite.json"\n[source.mapping]') + SPARK
    )  # fmt: skip
    with PeakMemory() as peak:
        code, summary = run_here("import_products", ["--config", str(sample.file)])
    outcome.ended(code)
    outcome.times += expected.total()
    outcome.notes.append(f"{expected.total():,} rows: peak {peak.mib:,.0f} MiB")
    if code:
        outcome.notes.insert(0, f"{folder.name}: {summary.get('message', '')[:300]}")
        outcome.lost += expected.total()
        return
    _account(sample, summary, expected, outcome)


def _account(sample: SampleCatalog, summary: dict[str, Any], expected: Counter[str], outcome: Outcome) -> None:
    """Look for each row in the tables: once among the products, or in quarantine with a known reason."""
    products, quarantine = table(sample, "products"), table(sample, "quarantine")
    found = Counter(row["shop_id"] for row in products)
    found.update(mark_of(row["payload"] or "") for row in quarantine)
    lost, more = expected - found, found - expected
    outcome.lost += lost.total()
    outcome.duplicated += more.total() + len(products) - len({row["product_id"] for row in products})
    outcome.equal += (expected & found).total()
    accepted = sum(summary[name] for name in ("new", "changed", "unchanged"))
    refused = sum(summary["quarantined"].values())
    outcome.unexplained += sum(row["reason"] not in REASONS for row in quarantine)
    outcome.unexplained += abs(summary["products"] - accepted - refused) + abs(summary["products"] - expected.total())
    outcome.unexplained += abs(accepted - len(products)) + abs(refused - len(quarantine))
    outcome.notes += [f"lost {text[:200]!r}" for text in list(lost)[:2]]
    outcome.notes += [f"more {text[:200]!r}" for text in list(more)[:2]]


def mark_of(text: str) -> str:
    """Return the mark in a line or payload; without a mark the line itself, as quarantine cuts it."""
    mark = re.search(r"mark-\d+", text)
    return mark[0] if mark else text[:2000].strip()


def write(feed: Path, kind: str, rows: Sequence[HostileRow]) -> tuple[str, Counter[str]]:
    """Write the rows as a source of this kind into ``feed``; return its name and the marks that must be found again."""
    records = [row for row in rows if row.record is not None]
    if kind == "jsonl":
        text = "\ufeff" + "\n\n \t\n".join(row.line for row in rows)
        (feed / "rows.jsonl").write_bytes(text.encode("utf-8", "replace"))
        return "rows.jsonl", Counter(mark_of(row.line) for row in rows)
    if kind == "json_files":
        (feed / "rows").mkdir()
        for number, row in enumerate(rows):
            (feed / "rows" / f"{number}.json").write_bytes(row.line.encode("utf-8", "replace"))
        return "rows", Counter(mark_of(row.line) for row in rows)
    if kind == "python_lines":
        lines = [
            repr(row.record) if row.record is not None else BROKEN_PYTHON[number % len(BROKEN_PYTHON)] % row.mark
            for number, row in enumerate(rows)
        ]
        (feed / "rows.txt").write_bytes("\n".join(lines).encode("utf-8", "replace"))
        return "rows.txt", Counter(mark_of(line) for line in lines)
    if kind in ("csv", "tsv"):
        return _write_cells(feed, kind, rows)
    columns = {name: [_bytes(row.record[name]) for row in records if row.record] for name in COLUMNS}
    if kind == "parquet":  # texts that are no valid UTF-8, as a program writes them that does not check
        cells = pa.table({name: pa.array(values, pa.binary()).view(pa.string()) for name, values in columns.items()})
        pq.write_table(cells, feed / "rows.parquet")
    else:
        from deltalake import write_deltalake

        valid = {n: [v if v is None else v.decode("utf-8", "replace") for v in vs] for n, vs in columns.items()}
        write_deltalake(str(feed / "rows.delta"), pa.table({n: pa.array(v, pa.string()) for n, v in valid.items()}))
    return f"rows.{kind}", Counter(row.mark for row in records)


def _write_cells(feed: Path, kind: str, rows: Sequence[HostileRow]) -> tuple[str, Counter[str]]:
    separator = "," if kind == "csv" else "\t"
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for number, row in enumerate(rows):
        if row.record is None:
            sink.write(BROKEN_CELLS[number % len(BROKEN_CELLS)].replace(",", separator) % row.mark + "\n")
        else:
            writer.writerow([(_bytes(row.record[name]) or b"").decode("utf-8", "replace") for name in COLUMNS])
    (feed / f"rows.{kind}").write_bytes(sink.getvalue().encode("utf-8", "replace"))
    return f"rows.{kind}", Counter(row.mark for row in rows)


def _bytes(value: Any) -> bytes | None:
    text = value if isinstance(value, str) or value is None else json.dumps(value)
    return None if text is None else text.encode("utf-8", "surrogatepass")
