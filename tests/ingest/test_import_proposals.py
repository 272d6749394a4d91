"""import_proposals on real tables: formats, which content an answer is about, what is counted, and repetition."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.proposer import AnswersConfig, ProposalsConfig
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.import_proposals import KEY, import_proposals
from catalog_enrichment.operations.delete_products import delete_products

from .. import sample_catalog
from ..sample_catalog import SampleCatalog, killed_at, run_job, table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UPDATED = datetime(2026, 1, 2, 12, tzinfo=UTC)
PLAIN = {"format": "csv", "path": "answers.csv", "name": "llm", "version": "1", "content_hash": "hash"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> SampleCatalog:
    """Products a, b (in German) and c (never updated); no answers yet."""
    sample = sample_catalog.build(tmp_path_factory.mktemp("answers") / "sample", spark)
    words = json.loads((sample.folder / "attributes.json").read_text())
    words["attributes"][0]["aliases"] = {"de": {"rot": "Red"}, "es": {"rot": "Blue"}}
    (sample.folder / "attributes.json").write_text(json.dumps(words))
    products = [
        {"product_id": name, "content_hash": f"hash-{name}", "title": name, "language": language, "opt_out": False,
         "updated_at": updated_at}
        for name, language, updated_at in (("a", "en", UPDATED), ("b", "de", UPDATED), ("c", None, None))
    ]  # fmt: skip
    Catalog(sample.config.path("catalog")).append_rows("products", products, "products")
    return sample


def imported(sample: SampleCatalog, answers: AnswersConfig | None = None, **changes: Any) -> dict[str, Any]:
    given = ProposalsConfig(**(PLAIN | changes), answers=answers or AnswersConfig())
    return import_proposals(replace(sample, config=replace(sample.config, proposals=given)).context())


def csv(sample: SampleCatalog, *lines: str) -> None:
    (sample.folder / "answers.csv").write_text("\n".join(lines) + "\n")


def stored(sample: SampleCatalog) -> dict[tuple[str, str, str], list[tuple[str, float, str | None]]]:
    rows = {
        tuple(row[name] for name in KEY[2:]): [
            (found["value"], found["score"], found["evidence"]) for found in row["candidates"]
        ]
        for row in table(sample, "proposals")
    }
    assert len(rows) == len(table(sample, "proposals"))
    return rows  # type: ignore[return-value]


def test_a_csv_file_by_content_hash(sample: SampleCatalog) -> None:
    csv(
        sample,
        "product_id,hash,color,color_score,color_evidence,material",
        'a,hash-a,red,0.5,"title: a red, shirt",',
        "a,hash-a,blue,0.75,,wool",
        'b,hash-b,rot,1,,"[""Wool"", ""Silk""]"',
        "c,hash-old,Green,0.25,,",
        "c,,Green,0.25,,",
        ",hash-c,Green,0.25,,",
        "x,hash-x,Green,0.25,,",
        "b,hash-b,Blue,high,,",
        'a,hash-a,"Red',
    )
    summary = imported(sample)
    assert stored(sample) == {
        ("a", "hash-a", "color"): [("Blue", 0.75, None)],
        ("a", "hash-a", "material"): [("Wool", 0.5, None)],  # of two answers
        ("b", "hash-b", "color"): [("Red", 1.0, None)],
        ("b", "hash-b", "material"): [("Wool", 0.5, None)],
        ("c", "hash-old", "color"): [("Green", 0.25, None)],
        ("c", "hash-old", "material"): [],
    }
    assert summary["outcomes"] == {
        "current": 4, "stale": 1, "unknown_product": 1, "unreadable": 1, "without_content_hash": 1,
        "without_product_id": 1,
    }  # fmt: skip
    assert (summary["status"], summary["rows"], summary["unknown_examples"]) == ("succeeded", 9, ["x"])
    assert (summary["products"], summary["new"], summary["kept"]) == (3, 6, 0)
    assert summary["attributes"]["color"] | {"unmapped_values": {}} == {
        "proposed": 3, "without_value": 0, "unreadable": 0, "bad_score": 1, "unmapped": 0, "unmapped_values": {},
    }  # fmt: skip
    assert summary["attributes"]["material"]["unmapped_values"] == {"Silk": 1}
    row = table(sample, "proposals")[0]
    record = runs.find(sample.context().catalog, summary["run_id"])
    assert record is not None
    assert (row["proposer"], row["version"], row["run_id"]) == ("llm", "1", summary["run_id"])
    assert row["answered_at"] == record["started_at"].replace(tzinfo=UTC)
    assert json.loads(record["attributes"]) == summary["attributes"]


def test_by_time_an_answer_is_about_the_present_content_or_stale(sample: SampleCatalog) -> None:
    times = {
        "a": ["2026-01-02 12:00:00", "2026-01-02T11:59:59Z", "13:00", "yesterday", ""],
        "b": ["2026-01-02T13:00:00+01:00", "2026-01-02T12:59:00+01:00"],
        "c": ["2026-06-01"],
    }
    csv(sample, "product_id,at,color", *(f"{name},{time},Red" for name in times for time in times[name]))
    summary = imported(sample, content_hash="", answered_at="at")
    assert stored(sample) == {(name, f"hash-{name}", "color"): [("Red", 1.0, None)] for name in ("a", "b")}
    assert summary["outcomes"] == {"current": 2, "stale": 3, "unreadable_time": 3}


def parquet(sample: SampleCatalog, rows: Sequence[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), sample.folder / "answers.parquet")


def delta(sample: SampleCatalog, rows: Sequence[dict[str, Any]]) -> None:
    import deltalake

    deltalake.write_deltalake(sample.folder / "answers.delta", pa.Table.from_pylist(list(rows)))


def jsonl(sample: SampleCatalog, rows: Sequence[dict[str, Any]]) -> None:
    (sample.folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("write", [parquet, delta, jsonl], ids=lambda write: write.__name__)
def test_lists_of_structs_in_columns_of_any_name(
    sample: SampleCatalog, write: Callable[[SampleCatalog, Sequence[dict[str, Any]]], None]
) -> None:
    given = [{"value": "wool", "score": 0.5, "evidence": "soft"}, {"value": "cotton", "score": 0.75, "evidence": None}]
    write(sample, [{"id": "a", "hash": "hash-a", "made of": given, "colour": "Red", "sure": 0.25},
                   {"id": "b", "hash": "hash-b", "made of": [], "colour": None, "sure": None}])  # fmt: skip
    answers = AnswersConfig(columns={"material": "made of", "color": "colour"}, scores={"color": "sure"})
    imported(sample, answers, format=write.__name__, path=f"answers.{write.__name__}", product_id="id")
    assert stored(sample) == {
        ("a", "hash-a", "color"): [("Red", 0.25, None)],
        ("a", "hash-a", "material"): [("Cotton", 0.75, None), ("Wool", 0.5, "soft")],
        ("b", "hash-b", "color"): [],
        ("b", "hash-b", "material"): [],
    }


def test_raw_answers_again_corrected_and_after_a_kill(sample: SampleCatalog) -> None:
    answers = AnswersConfig(json_column="answer", columns={"color": "colour"})

    def again(**changes: Any) -> dict[str, Any]:
        return imported(sample, answers, format="jsonl", path="answers.jsonl", **changes)

    texts = {
        "a": '```json\n{"colour": "Red", "material": ["Wool"]}\n```',
        "b": '{"colour": "R',
        "c": '{"colour": "mauve"}',
    }
    rows = [{"product_id": name, "hash": f"hash-{name}", "answer": text} for name, text in texts.items()]
    jsonl(sample, rows)
    with killed_at(runs, "write"):
        again()
    written = table(sample, "proposals")
    first = again()
    assert table(sample, "proposals") == written
    assert (first["status"], first["new"], first["run_id"]) == ("succeeded", 3, written[0]["run_id"])
    assert first["attributes"]["color"]["unreadable"] == 1
    assert first["attributes"]["color"]["unmapped_values"] == {"mauve": 1}
    assert stored(sample) == {
        ("a", "hash-a", "color"): [("Red", 1.0, None)],
        ("a", "hash-a", "material"): [("Wool", 1.0, None)],
        ("c", "hash-c", "color"): [],
    }
    assert again()["status"] == "nothing_to_do"
    jsonl(sample, rows[::-1])  # another file, with the same answers
    same = again()
    assert (same["status"], same["unchanged"], same["run_id"]) == ("nothing_to_do", 3, None)
    assert table(sample, "proposals") == written

    again(version="2")  # another version's answers stand beside
    rows[1]["answer"] = '{"colour": "rot"}'
    rows[2]["answer"] = '{"colour": "Green"}'
    jsonl(sample, rows)
    with killed_at(Catalog, "append"):
        again()
    corrected = again()
    assert (corrected["new"], corrected["kept"], corrected["unchanged"]) == (1, 1, 2)
    found = {tuple(row[name] for name in KEY): row for row in table(sample, "proposals")}
    assert len(found) == len(table(sample, "proposals")) == 7
    # a certificate may rest on the answer that was given: it stays, the answer that could not be read is added
    assert found["llm", "1", "c", "hash-c", "color"]["candidates"] == []
    assert found["llm", "1", "c", "hash-c", "color"]["run_id"] == first["run_id"]
    assert found["llm", "1", "b", "hash-b", "color"]["run_id"] == corrected["run_id"]
    assert list(sample.context().catalog.storage.folders("_staging")) == []

    delete_products(sample.context(), ["c"])
    assert {row["product_id"] for row in table(sample, "proposals")} == {"a", "b"}


def test_unmapped_values_of_all_tasks_are_counted_together(sample: SampleCatalog) -> None:
    context = sample.context()
    lines = [
        f"{name},hash-{name},{shade}"
        for name in "abc"
        for shade in ("mauve", "taupe", *(f"{name}{n}" for n in range(4000)))
    ]
    csv(sample, "product_id,hash,color", *lines, "a,hash-a,taupe")
    several = {"spark.sql.shuffle.partitions": "7", "spark.sql.adaptive.coalescePartitions.enabled": "false"}
    before = {name: str(context.spark.conf.get(name)) for name in several}
    try:
        for name, value in several.items():
            context.spark.conf.set(name, value)
        color = imported(sample)["attributes"]["color"]
    finally:
        for name, value in before.items():
            context.spark.conf.set(name, value)
    assert (color["unmapped"], color["proposed"], len(color["unmapped_values"])) == (12_007, 0, 50)
    assert list(color["unmapped_values"].items())[:3] == [("taupe", 4), ("mauve", 3), ("a0", 1)]


@pytest.mark.parametrize(
    ("lines", "changes", "answers", "error", "says"),
    [
        (["product_id,hash,color"], {}, {}, DataContractError, "has no rows"),
        (["id,hash,color", "a,h,Red"], {}, {}, DataContractError, r"proposals.product_id: column .* not exist.*'id'"),
        (["product_id,color", "a,Red"], {}, {}, DataContractError, r"proposals.content_hash.*'hash' does not.*'color'"),
        (["product_id,hash,colour", "a,h,Red"], {}, {}, DataContractError, r"none of the attributes.*'colour'"),
        (["product_id,hash,color", "a,h,Red"], {}, {"columns": {"material": "stuff"}}, DataContractError,
         r"answers.columns.material: column 'stuff' does not exist"),
        (["product_id,hash,color", "a,h,Red"], {}, {"scores": {"color": "sure"}}, DataContractError,
         r"answers.scores.color: column 'sure' does not exist"),
        (["product_id,hash,color", "a,h,Red"], {}, {"json_column": "raw"}, DataContractError,
         r"answers.json_column: column 'raw' does not exist"),
        (["product_id,hash,color", "a,h,Red"], {}, {"columns": {"brand": "brand"}}, ConfigError,
         r"\['brand'\] are no attributes of the dictionary.*'color'"),
        (["product_id,hash,color", "x,h,Red", "y,,Red"], {}, {}, DataContractError,
         r"about a product of the catalog: 1 about products that the catalog does not have.*\('x'\)"),
        (["product_id,hash,color", "a,h,Red"], {"path": "none.csv"}, {}, DataContractError, r"proposals.path: nothing"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(
    sample: SampleCatalog, lines: list[str], changes: dict[str, Any], answers: dict[str, Any],
    error: type[Exception], says: str,
) -> None:  # fmt: skip
    csv(sample, *lines)
    with pytest.raises(error, match=says):
        imported(sample, AnswersConfig(**answers), **changes)
    assert table(sample, "proposals") == []
    assert [row["status"] for row in table(sample, "runs")] == ["failed"]


def test_without_products_or_a_section_there_is_nothing_to_import(
    tmp_path: Path, template: SampleCatalog, spark: SparkSession
) -> None:
    empty = sample_catalog.build(tmp_path / "empty", spark)
    with pytest.raises(DataContractError, match=r"no products at .*: run import_products first"):
        imported(empty)
    code, summary, _ = run_job("import_proposals", "--config", str(template.file))
    assert (code, summary["error"]) == (2, "ConfigError")
    assert "no [proposals] section" in summary["message"]


def test_the_job_reads_the_config(sample: SampleCatalog) -> None:
    csv(sample, "product_id,hash,color", "a,hash-a,Red")
    settings = [f"--set=proposals.{name}='{value}'" for name, value in PLAIN.items()]
    code, summary, printed = run_job("import_proposals", "--config", str(sample.file), *settings)
    assert (code, summary["new"]) == (0, 1)
    assert "color: 1 products with a proposal" in printed
