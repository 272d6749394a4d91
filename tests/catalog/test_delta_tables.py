"""The shape of a table and what a commit checks and records; which checkpoints a run keeps is in test_checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, Schema

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.part_files import Part
from catalog_enrichment.errors import ConfigError, DataContractError

from .catalog_rows import product, run_row


def other_type(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [field | {"type": "string"} if field["name"] == "attempt" else field for field in fields]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda fields: fields[1:], id="a column is missing"),
        pytest.param(lambda fields: [*fields, fields[-1] | {"name": "tomorrow"}], id="a newer release added a column"),
        pytest.param(other_type, id="a column has another type"),
    ],
)
def test_a_table_of_another_shape_is_refused_and_not_changed(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    fields = change(json.loads(contract.table_json("runs"))["fields"])
    folder = tmp_path / "lake" / "runs"
    folder.mkdir(parents=True)
    DeltaTable.create(folder.as_uri(), Schema.from_json(json.dumps({"type": "struct", "fields": fields})))
    with pytest.raises(DataContractError, match=r"does not have the columns of contract runs\.v1: it has \["):
        Catalog(tmp_path / "lake").append_rows("runs", [run_row("run-1")], "run-1")
    assert DeltaTable(folder).version() == 0


def test_every_commit_says_that_it_changes_data_and_which_run_made_it(tmp_path: Path) -> None:
    Catalog(tmp_path / "lake").append_rows("products", [product("a"), product("b")], "import-1")
    log = (tmp_path / "lake" / "products" / "_delta_log" / f"{1:020}.json").read_text().splitlines()
    actions = [json.loads(line) for line in log]
    (added,) = [action["add"] for action in actions if "add" in action]
    assert added["dataChange"] is True
    (info,) = [action["commitInfo"] for action in actions if "commitInfo" in action]
    assert (info["run_id"], info["rows"]) == ("import-1", 2)


def test_files_that_the_driver_does_not_see_whole_are_not_committed(tmp_path: Path) -> None:
    lake = Catalog(tmp_path / "lake")
    delta = lake.tables.create("products")
    (tmp_path / "lake" / "products" / "part.parquet").write_bytes(b"12345")

    def commit(*parts: Part) -> bool:
        return lake.tables.commit(delta, parts, "run-1", {"run-1": len(parts)})

    whole = Part("part.parquet", 5, 1, "{}")
    for missing in (Part("other.parquet", 5, 1, "{}"), Part("part.parquet", 6, 1, "{}")):
        with pytest.raises(ConfigError, match=r"catalog\.path must be a folder"):
            commit(whole, missing)
    with pytest.raises(DataContractError, match=r"table products: a; b\. Nothing was written"):
        commit(Part("x", 0, 0, "", "b"), Part("y", 0, 0, "", "a"), Part("z", 0, 0, "", "a"))
    assert not lake.committed("products", "run-1")
    assert commit(whole)
