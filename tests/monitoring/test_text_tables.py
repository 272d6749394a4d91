"""Columns are aligned in a terminal, also with wide and control characters."""

from __future__ import annotations

from catalog_enrichment.monitoring.text_tables import Column, aligned_table, attributes_table

ROW = {
    "attribute": "color", "merchant": 12345, "written": 900, "values_written": 1100, "suggested": 80,
    "abstained": 20, "retracted": 5,
    "precision": 0.9712, "coverage_before": 0.6, "coverage_after": 0.755,
}  # fmt: skip


def test_a_run_is_one_line_per_attribute() -> None:
    odd = dict.fromkeys(ROW, 0) | {"attribute": "x", "abstained": 7, "precision": None, "coverage_after": None}
    assert aligned_table([ROW, odd]).splitlines() == [
        "attribute  merchant  written  values  suggested  abstained  retracted  precision          coverage",
        "---------  --------  -------  ------  ---------  ---------  ---------  ---------  ----------------",
        "color        12,345      900   1,100         80         20          5      97.1%   60.0% ->  75.5%",
        "x                 0        0       0          0          7          0          -    0.0% ->      -",
    ]


def test_no_rows_leave_the_headings() -> None:
    assert len(aligned_table([]).splitlines()) == 2


def test_wide_and_control_characters_do_not_break_the_lines() -> None:
    columns = (Column("name", lambda row: row["name"], "<"), Column("n", lambda row: row["n"]))
    text = aligned_table([{"name": "素材\n", "n": "1"}, {"name": "a" * 6, "n": "2"}], columns)
    assert text.splitlines() == ["name    n", "------  -", "素材    1", "aaaaaa  2"]


def test_the_table_of_a_run_whose_truth_is_unknown_has_no_precision() -> None:
    numbers = {name: value for name, value in ROW.items() if name not in ("attribute", "precision")}
    assert attributes_table({"color": numbers}).splitlines() == [
        "attribute  merchant  written  values  suggested  abstained  retracted          coverage",
        "---------  --------  -------  ------  ---------  ---------  ---------  ----------------",
        "color        12,345      900   1,100         80         20          5   60.0% ->  75.5%",
    ]
