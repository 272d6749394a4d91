"""Column selectors: columns, elements of lists, templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import ConfigError, DataContractError

from .read_source import read_source

ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "a", "paths": [["Beauty", "Hair", "Wigs"], ["Gifts"]], "tags": ["x", " ", "y", "x"], "n": 7,
     "odd[0]": "own"},
    {"id": "2", "name": "b", "paths": [["Beauty"]], "tags": [], "n": None, "odd[0]": None},
]  # fmt: skip


def _read(spark: Any, folder: Path, kind: str, **mapping: Any) -> dict[str, Any]:
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "feed.parquet")
    else:
        (folder / "feed.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    source = SourceConfig(
        format=kind, path=f"feed.{kind}", mapping=MappingConfig(product_id="id", title="name", **mapping)
    )
    return {row.product_id: row for row in read_source(spark, source, folder).collect()}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_indexes_count_as_in_python_and_lists_become_text_and_values(kind: str, spark: Any, tmp_path: Path) -> None:
    rows = _read(
        spark, tmp_path, kind,
        category="paths[0]", description="tags", language="paths[0][-2]", shop_id="odd[0]",
        attributes={"leaf": "paths[0][-1]", "second": "paths[0][1]", "path": "paths[0]", "tags": "tags"},
    )  # fmt: skip
    assert (rows["1"].category, rows["1"].language, rows["1"].shop_id) == ("Beauty/Hair/Wigs", "Hair", "own")
    assert rows["1"].description == "x\n \ny\nx"
    assert rows["1"].merchant_attributes == {
        "leaf": ["Wigs"], "second": ["Hair"], "path": ["Beauty", "Hair", "Wigs"], "tags": ["x", "y"],
    }  # fmt: skip
    assert (rows["2"].category, rows["2"].language, rows["2"].description) == ("Beauty", "en", None)
    assert rows["2"].merchant_attributes == {"leaf": ["Beauty"], "path": ["Beauty"]}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_template_with_an_empty_column_is_null(kind: str, spark: Any, tmp_path: Path) -> None:
    rows = _read(spark, tmp_path, kind, image_uris="{paths[0][0]}/{{{n}}}_{name}.jpg", description="no. {n}")
    assert [image.uri for image in rows["1"].images] == ["Beauty/{7}_a.jpg"]
    assert rows["1"].description == "no. 7"
    assert (rows["2"].images, rows["2"].description) == ([], None)


@pytest.mark.parametrize(
    ("selector", "error", "complaint"),
    [
        ("{nome}.jpg", DataContractError, "'nome' does not exist.*'name'"),
        ("{paths}.jpg", DataContractError, r"'paths' has type array<array<string>>.*template"),
        ("{name", ConfigError, "not a usable template"),
        ("{}.jpg", ConfigError, "column's name"),
        ("{name!r:>5}.jpg", ConfigError, "nothing else"),
        ("n[0]", DataContractError, "bigint has no elements"),
        ("paths", DataContractError, r"type array<array<string>>.*usable"),
        ("nome[0]", DataContractError, "does not exist"),
    ],
)
def test_an_unusable_selector_is_refused(
    selector: str, error: type[Exception], complaint: str, spark: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=complaint):
        _read(spark, tmp_path, "parquet", image_uris=selector)


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("['Black', 'White']", ["Black", "White"]),
        ("""["Rot", 'it\\'s']""", ["Rot", "it's"]),
        ("[]", None),
        ("[NEW] Black", ["[NEW] Black"]),
        ("['Black'] or so", ["['Black'] or so"]),
        ("NaN", None),
        ("['NaN', 'Red']", ["Red"]),
    ],
)
def test_a_cell_can_hold_a_list(cell: str, values: list[str] | None, spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text('id,color\n1,"' + cell.replace('"', '""') + '"\n')
    mapping = MappingConfig(product_id="id", title="id", attributes={"color": "color"})
    source = SourceConfig(format="csv", path="feed.csv", empty_texts=["NaN"], mapping=mapping)
    (row,) = read_source(spark, source, tmp_path).collect()
    assert row.merchant_attributes.get("color") == values
