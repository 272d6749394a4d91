"""What readers see, in one file: which values with what they are joined, the same rows in every format, refusals."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog import part_files
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import exported_values, spreadsheet
from catalog_enrichment.operations.exported_values import (
    EXPORT_FORMATS,
    SCHEMA,
    TITLED_SCHEMA,
    ExportFormat,
    ExportRequest,
    write_values,
)
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.kinds import Kind, NumberRule

from ..catalog.catalog_rows import START, product, run_row
from ..sample_catalog import SampleCatalog, table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DICTIONARY = Dictionary(
    {name: Attribute(name=name, cardinality=Cardinality.MANY, values=("Red",)) for name in ("color", "material")}
)


def seen(product_id: str, attribute: str, *values: str, **given: Any) -> dict[str, Any]:
    return {"product_id": product_id, "attribute": attribute, "values": list(values), "source": "merchant", **given}


def event(
    product_id: str, attribute: str, value: str, run_id: str, score: float | None, **given: Any
) -> dict[str, Any]:
    key = f"{run_id} {product_id} {attribute} {value} {given.get('op')}"
    row = {"event_id": key, "op": "assert", "product_id": product_id, "attribute": attribute, "value": value}
    return row | {"source": "model", "run_id": run_id, "score": score, "asserted_at": START, **given}


BY_MODEL = {"source": "model", "model_version": "7", "certificate_id": "c", "asserted_at": START}
PRODUCTS = [
    product("a", shop_id="s1", category="Apparel/Tops"),
    product("b", shop_id="s2", category="Apparel"),
    product("c", shop_id=None, category=None),
]
SEEN = [
    seen("c", "color", "Red", source="human", run_id="set-1", asserted_at=START + timedelta(minutes=1)),
    seen("b", "material", "Wool", run_id="enrich-2", **BY_MODEL),
    seen("a", "material", "Wool", "Cotton", run_id="enrich-1", **BY_MODEL),
    seen("a", "color", "Red", "=Blue"),
    seen("gone", "color", "Red"),
]
EVENTS = [
    event("a", "material", "Cotton", "enrich-1", 0.91, evidence="=cotton"),
    event("a", "material", "Wool", "enrich-1", 0.92),
    event("a", "material", "Wool", "enrich-0", 0.5),
    event("a", "color", "Red", "enrich-0", 0.6),
    event("b", "material", "Wool", "enrich-2", 0.93, evidence="of wool"),
    event("b", "material", "Wool", "enrich-2", 0.1, op="retract"),
    event("c", "color", "Red", "set-1", None, source="human"),
]
RUNS = [
    run_row("enrich-0"),
    run_row("enrich-2", parent_run_id="backfill-1", finished_at=START + timedelta(hours=2)),
    run_row("backfill-1", kind="backfill", finished_at=START + timedelta(hours=3)),
    run_row("rollback-1", kind="rollback", parent_run_id="enrich-0", finished_at=START + timedelta(hours=4)),
    run_row("import-1", kind="import", finished_at=START + timedelta(hours=5)),
    run_row("enrich-1", finished_at=START + timedelta(hours=1)),
]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A catalog without Spark; not to change."""
    catalog = Catalog(tmp_path_factory.mktemp("export") / "catalog")
    for name, rows in (("products", PRODUCTS), ("current_values", SEEN), ("runs", RUNS)):
        catalog.append_rows(name, rows, "test")
    for run_id in ("enrich-0", "enrich-1", "enrich-2", "set-1", "rollback-1"):
        catalog.append_rows("attribute_values", [row for row in EVENTS if row["run_id"] == run_id], run_id)
    return catalog


def request(target: Path = Path("/nosuch/values.csv"), **given: Any) -> ExportRequest:
    return ExportRequest(target=target, **{"kind": "csv"} | given)


def test_every_value_is_a_row_with_its_product_and_score(
    catalog: Catalog, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_values, "PARTITION_ROWS", 3)  # sorted over partitions, too
    said: list[str] = []
    target = tmp_path / "values.csv"
    done = exported_values.export_values(Catalog(catalog.storage.folder, spark), request(target), said.append)
    assert (done["status"], done["file"], done["format"]) == ("succeeded", str(target), "csv")
    assert (done["values"], done["sources"]) == (7, {"human": 1, "merchant": 3, "model": 3})
    assert said[-1] == f"wrote 7 values (human 1, merchant 3, model 3) to {target}"
    with target.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    since, later = "2026-03-29T01:30:00.123456Z", "2026-03-29T01:31:00.123456Z"
    assert rows == [
        ["a", "s1", "Apparel/Tops", "color", "'=Blue", "", "", "merchant", "", "", "", "", "", ""],
        ["a", "s1", "Apparel/Tops", "color", "Red", "", "", "merchant", "", "", "", "", "", ""],
        [
            "a",
            "s1",
            "Apparel/Tops",
            "material",
            "Cotton",
            "",
            "",
            "model",
            "0.91",
            "'=cotton",
            "7",
            "c",
            "enrich-1",
            since,
        ],
        ["a", "s1", "Apparel/Tops", "material", "Wool", "", "", "model", "0.92", "", "7", "c", "enrich-1", since],
        ["b", "s2", "Apparel", "material", "Wool", "", "", "model", "0.93", "of wool", "7", "c", "enrich-2", since],
        ["c", "", "", "color", "Red", "", "", "human", "", "", "", "", "set-1", later],
        ["gone", "", "", "color", "Red", "", "", "merchant", "", "", "", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("only", "products"),
    [
        ({"attributes": ("color",), "shops": ("s1",)}, "aa"),
        ({"categories": ("Apparel",), "sources": ("human", "model")}, "aab"),
        ({"categories": ("Apparel/Tops", "")}, ["a", "a", "a", "a", "c", "gone"]),
        ({"run_ids": ("backfill-1", "set-1")}, "bc"),
    ],
    ids=str,
)
def test_restrictions_hold_together(
    catalog: Catalog, spark: SparkSession, tmp_path: Path, only: dict[str, Any], products: str | list[str]
) -> None:
    asked = request(tmp_path / "values.jsonl", kind="jsonl", titles=True, **only)
    exported_values.export_values(Catalog(catalog.storage.folder, spark), asked)
    rows = read(asked.target, "jsonl")
    assert [row["product_id"] for row in rows] == list(products)
    titles = {row["product_id"]: row.get("title") for row in PRODUCTS}
    assert [row["title"] for row in rows] == [titles.get(row["product_id"]) for row in rows]


def test_a_category_or_shop_that_no_product_has_is_refused(
    catalog: Catalog, spark: SparkSession, tmp_path: Path
) -> None:
    lake, target = Catalog(catalog.storage.folder, spark), tmp_path / "values.csv"
    with pytest.raises(ConfigError, match=r"--category: no product is in .*'Aparel'.*Did you mean 'Apparel'"):
        exported_values.export_values(lake, request(target, categories=("Apparel", "Aparel")))
    with pytest.raises(ConfigError, match=r"--shop: no product is of \['S1'\]"):
        exported_values.export_values(lake, request(target, shops=("s1", "S1")))
    assert not target.exists()


def test_what_is_wrong_without_spark(catalog: Catalog, tmp_path: Path) -> None:
    def check(target: Path, **given: Any) -> None:
        exported_values.check(catalog, DICTIONARY, request(target, **given))

    check(tmp_path / "a.csv", attributes=("color",), run_ids=("backfill-1",))
    target = tmp_path / "b" / "b.csv"
    with pytest.raises(ConfigError, match=r"no attribute \['size'\] in the dictionary; it has \['color', 'material'\]"):
        check(target, attributes=("color", "size"))
    newest = r"'import-1' wrote no values. The newest that did: \['rollback-1', 'enrich-2', 'enrich-1', 'enrich-0'\]"
    with pytest.raises(ConfigError, match=newest):
        check(target, run_ids=("enrich-1", "import-1"))
    assert not target.parent.exists()
    with pytest.raises(ConfigError, match="in the catalog's own folder"):
        check(Path(catalog.location("current_values")) / "b.csv")


def test_the_job_exports_what_readers_see(
    first_run: tuple[SampleCatalog, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample, run = first_run
    target = tmp_path / "values.jsonl"
    arguments = ["--config", str(sample.file), "--out", str(target)]
    assert cli.export_values(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    current = table(sample, "current_values")
    assert summary["values"] == len(rows)
    assert [(row["product_id"], row["attribute"], row["value"]) for row in rows] == sorted(
        (row["product_id"], row["attribute"], value) for row in current for value in row["values"]
    )
    assert {row["run_id"] for row in rows if row["source"] == "model"} == {run["run_id"]}
    assert cli.export_values(arguments) == 2
    assert "--overwrite" in json.loads(capsys.readouterr().out)["message"]
    assert cli.export_values([*arguments, "--overwrite", "--run", run["run_id"], "--attribute", "color"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sources"].keys() == {"model"}


# --- the file -------------------------------------------------------------------------------------------------------

SINCE = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
FORMULAS = ["=1+1", "+1", "-5 °C", "@x", "\t\n =x", "\uff1dx", "\uff0bx", "\uff0dx", "\uff20x"]
TEXTS = ["it's", 'say "hi"', "línea\nnueva", "a,b;c|d", "商品-1", "🙂", "", " ", "a=b", "'=x", "\u2028"]


def value(text: str | None, **given: Any) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMA.names) | {"product_id": "p", "attribute": "color", "value": text, "source": "merchant"}
    return row | given


ROWS = [
    value("Red", source="model", score=0.1 + 0.2, model_version="7", certificate_id="c", run_id="run-1", since=SINCE),
    value("Red", product_id="q", shop_id="=s", category="-c", attribute="@a", source="human", since=SINCE),
    *(value(text, product_id=text) for text in TEXTS + FORMULAS),
]


def batches(rows: list[dict[str, Any]], size: int = 3) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), size):
        yield pa.RecordBatch.from_pylist(rows[start : start + size], SCHEMA)


def read(file: Path, kind: ExportFormat) -> list[dict[str, Any]]:
    """The rows of a file, as the formats' common readers give them."""
    if kind == "xlsx":
        headings, *rows = openpyxl.load_workbook(file).worksheets[0].values
        names = {heading: name for name, (heading, _) in spreadsheet.HEADINGS.items()}
        return [{names[str(heading)]: cell for heading, cell in zip(headings, row, strict=True)} for row in rows]
    if kind == "parquet":
        return list(pq.read_table(file).to_pylist())
    if kind == "jsonl":
        return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write(tmp_path: Path, kind: ExportFormat, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    target = tmp_path / f"values.{kind}"
    written = write_values(batches(rows), target, kind)
    assert written == {name: n for name in sorted({"merchant", "human", "model"})
                       if (n := sum(row["source"] == name for row in rows))}  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == [target.name]
    return read(target, kind)


def test_parquet_has_the_rows_with_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)  # several row groups
    assert write(tmp_path, "parquet", ROWS) == ROWS
    assert pq.read_schema(tmp_path / "values.parquet").equals(SCHEMA)


def test_json_lines_have_a_row_each_with_the_time_as_text(tmp_path: Path) -> None:
    text = "2026-03-29T01:30:00.123456Z"
    assert write(tmp_path, "jsonl", ROWS) == [row | {"since": row["since"] and text} for row in ROWS]
    assert "商品-1" in (tmp_path / "values.jsonl").read_text("utf-8")


def test_csv_has_a_header_and_an_apostrophe_before_what_would_be_a_formula(tmp_path: Path) -> None:
    found = write(tmp_path, "csv", ROWS)
    assert [*found[0]] == SCHEMA.names
    model, human = found[:2]
    assert (float(model["score"]), model["since"]) == (0.1 + 0.2, "2026-03-29T01:30:00.123456Z")
    assert [human[name] for name in ("shop_id", "category", "attribute", "score")] == ["'=s", "'-c", "'@a", ""]
    assert [row["value"] for row in found[2:]] == TEXTS + [f"'{text}" for text in FORMULAS]
    assert [row["product_id"] for row in found[2:]] == [row["value"] for row in found[2:]]


def test_a_spreadsheet_has_every_text_as_it_is_and_as_a_text(tmp_path: Path) -> None:
    texts = ["007", "1e5", "#N/A", "TRUE", "2026-03-29", "_x0041_", "a\x01b\r", "x" * 40_000, *TEXTS, *FORMULAS]
    model, *found = write(tmp_path, "xlsx", [ROWS[0], *(value(text) for text in texts)])
    assert (model["score"], model["since"]) == (pytest.approx(0.3), datetime(2026, 3, 29, 1, 30))
    assert (model["model_version"], model["shop_id"]) == ("7", None)
    read_back = {"_x0041_": "_x005F_x0041_", "a\x01b\r": "a_x0001_b_x000D_", "": None}  # openpyxl does not undo it
    cut = {"x" * 40_000: "x" * 32_766 + "…"}
    assert [row["value"] for row in found] == [(read_back | cut).get(text, text) for text in texts]
    sheet = openpyxl.load_workbook(tmp_path / "values.xlsx").worksheets[0]
    column = list(spreadsheet.HEADINGS).index("value")  # of a sheet without titles: minus that column
    cells = [row[column - 1] for row in sheet.iter_rows(min_row=3)]
    assert {cell.data_type for cell in cells if cell.value is not None} == {"s"}
    marked = [cell.value for cell in cells if cell.quotePrefix]
    assert set(marked) == {text for text in [*texts, *FORMULAS] if re.match(r"[=+\-@\t ]", text)}
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", f"A1:N{len(texts) + 2}")


def test_a_spreadsheet_goes_on_in_another_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "MOST_ROWS", 4)
    write(tmp_path, "xlsx", [value(str(number)) for number in range(7)])
    sheets = openpyxl.load_workbook(tmp_path / "values.xlsx").worksheets
    assert [sheet.title for sheet in sheets] == ["Values", "Values 2", "Values 3"]
    rows = [[row[4] for row in sheet.iter_rows(values_only=True)] for sheet in sheets]
    assert rows == [["Value", "0", "1", "2"], ["Value", "3", "4", "5"], ["Value", "6"]]


def test_titles_are_a_column_on_request_and_always_in_a_spreadsheet(tmp_path: Path) -> None:
    assert request(kind="csv").schema.equals(SCHEMA)
    assert request(kind="csv", titles=True).schema.names[:3] == ["product_id", "title", "shop_id"]
    assert request(kind="xlsx").schema.equals(TITLED_SCHEMA)
    assert set(TITLED_SCHEMA.names) == set(spreadsheet.HEADINGS)
    batch = pa.RecordBatch.from_pylist([value("Red") | {"title": "=Shirt"}], TITLED_SCHEMA)
    write_values([batch], tmp_path / "a.csv", "csv", TITLED_SCHEMA)
    assert read(tmp_path / "a.csv", "csv")[0]["title"] == "'=Shirt"


def test_the_pattern_of_formulas_means_the_same_to_python_and_arrow() -> None:
    texts = [chr(number) + "=x" for number in range(1, 0x3000)] + FORMULAS + TEXTS
    [guarded] = exported_values.without_formulas(pa.chunked_array([texts])).chunks
    by_python = [f"'{text}" if re.match(exported_values.FORMULA, text) else text for text in texts]
    assert guarded.to_pylist() == by_python
    assert exported_values.without_formulas(pa.chunked_array([[None, "x"]], pa.string())).to_pylist() == [None, "x"]


@pytest.mark.parametrize("kind", EXPORT_FORMATS)
def test_without_rows_there_is_a_file_without_rows(tmp_path: Path, kind: ExportFormat) -> None:
    assert write(tmp_path, kind, []) == []
    if kind == "csv":
        assert (tmp_path / "values.csv").read_text().replace('"', "").strip().split(",") == SCHEMA.names


@pytest.mark.parametrize("kind", EXPORT_FORMATS)
def test_an_export_that_fails_leaves_what_was_there_and_a_reader_of_it_reads_on(
    tmp_path: Path, kind: ExportFormat
) -> None:
    def lost() -> Iterator[pa.RecordBatch]:
        yield from batches(ROWS)
        raise ConnectionError("lost")

    target = tmp_path / "values"
    target.write_text("earlier")
    with pytest.raises(ConnectionError):
        write_values(lost(), target, kind)
    assert target.read_text() == "earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["values"]
    with target.open() as reader:
        write_values(batches(ROWS), target, kind)
        assert reader.read() == "earlier"
    assert not target.read_bytes().startswith(b"earlier")


@pytest.mark.parametrize(
    ("output", "given", "name", "kind"),
    [
        ("a.csv", None, "a.csv", "csv"),
        ("a.PARQUET", None, "a.PARQUET", "parquet"),
        ("a.jsonl", None, "a.jsonl", "jsonl"),
        ("a.xlsx", None, "a.xlsx", "xlsx"),
        ("a", None, "a", "csv"),
        ("a.txt", "jsonl", "a.txt", "jsonl"),
        ("there", None, "there/values.csv", "csv"),
        ("new/", "parquet", "new/values.parquet", "parquet"),
    ],
)
def test_the_suffix_tells_the_format_and_a_folder_gets_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, given: Any, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert exported_values.destination(output, given) == (tmp_path / name, kind)
    with pytest.raises(ConfigError, match=r"\.json is none of csv, jsonl, parquet, xlsx; give --format"):
        exported_values.destination("a.json", None)


def test_a_file_is_replaced_only_on_request_and_a_path_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    exported_values.require_free(tmp_path / "new" / "folder" / "a.csv", overwrite=False)
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "a.csv").touch()
    exported_values.require_free(tmp_path / "a.csv", overwrite=True)
    with pytest.raises(ConfigError, match="--overwrite"):
        exported_values.require_free(tmp_path / "a.csv", overwrite=False)
    refused = {"new": "is a folder", "a.csv/below": "cannot be written", "x" * 300: "cannot be written"}
    for name, says in refused.items():
        with pytest.raises(ConfigError, match=says):
            exported_values.require_free(tmp_path / name, overwrite=True)


def test_numbers_have_their_number_and_unit_by_themselves(spark: SparkSession, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    given = {"a": "51 cm", "b": "-0.5 cm", "c": "wide", "d": "51 mm", "e": "501 cm"}
    catalog.append_rows("products", [product(name) for name in given], "test")
    others = [seen("a", "brand", "51 cm")]
    catalog.append_rows("current_values", [*(seen(*item) for item in _with_width(given)), *others], "test")
    for name in ("attribute_values", "runs"):
        catalog.append_rows(name, [], "test")
    width = Attribute(
        name="width",
        cardinality=Cardinality.ONE,
        kind=Kind.NUMBER,
        number=NumberRule(unit="cm", low=-1, high=500),
    )
    catalog.dictionary = Dictionary({"width": width})
    asked = request(tmp_path / "values.jsonl", kind="jsonl")
    exported_values.export_values(catalog, asked)
    found = {(row["attribute"], row["product_id"]): (row["number"], row["unit"]) for row in read(asked.target, "jsonl")}
    nothing = (None, None)
    assert found == {("brand", "a"): nothing, ("width", "a"): (51.0, "cm"), ("width", "b"): (-0.5, "cm")} | {
        ("width", "c"): nothing, ("width", "d"): (5.1, "cm"), ("width", "e"): nothing,
    }  # fmt: skip


def _with_width(values: dict[str, str]) -> list[tuple[str, str, str]]:
    return [(name, "width", value) for name, value in values.items()]
