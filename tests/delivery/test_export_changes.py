"""export_changes and delivery_status: files of changes for any consumer, and how far each consumer is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from catalog_enrichment.catalog.maintenance import Maintenance
from catalog_enrichment.config.operations import DeliveryConfig
from catalog_enrichment.delivery import change_files, status
from catalog_enrichment.delivery.differences import TABLE
from catalog_enrichment.delivery.export_changes import ChangesRequest, PositionFiles, export_changes
from catalog_enrichment.delivery.feed import Position
from catalog_enrichment.errors import ConfigError, DataContractError

from .conftest import Database
from .histories import State, Versions, applied, value
from .test_server_answers import config_file, job

RED = value("Red", 'a "quoted", value\n', "ü")


@pytest.fixture
def positions(tmp_path: Path) -> PositionFiles:
    return PositionFiles(tmp_path / "deliveries")


def written(versions: Versions, positions: PositionFiles, output: Path, **request: Any) -> dict[str, Any]:
    asked = ChangesRequest(output=str(output), **request)
    return export_changes(versions.catalog, positions, asked, say=lambda _: None)


def lines(file: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_json_lines_since_a_position(versions: Versions, positions: PositionFiles, tmp_path: Path) -> None:
    first = versions.show({("a", "color"): RED, ("b", "color"): value("Red", source="merchant")}, "run-1")
    newest = versions.show({("a", "color"): RED, ("c", "color"): RED}, "run-2")
    summary = written(versions, positions, tmp_path / "changes.jsonl", since=str(first))
    commit = {"version": newest.version, "changed_by": ["run-2"]}
    assert lines(summary["file"]) == [
        {"op": "delete", "product_id": "b", "attribute": "color", **commit},
        {
            "op": "upsert", "product_id": "c", "attribute": "color", "values": ["Red", 'a "quoted", value\n', "ü"],
            "source": "model", "run_id": "run-1", "model_version": "1", "certificate_id": "certificate-1",
            "asserted_at": "2026-03-29T01:31:00.123456+00:00", **commit,
        },
        {"op": "end", "position": str(newest), **commit},
    ]  # fmt: skip
    assert (summary["position"], summary["upserts"], summary["deletes"]) == (str(newest), 1, 1)
    assert (summary["kind"], summary["reason"], summary["commits"]) == ("changes", None, 1)
    again = written(versions, positions, tmp_path / "again.jsonl", since=str(newest))
    assert (again["status"], again["file"], again["position"]) == ("nothing_to_do", None, str(newest))
    assert not (tmp_path / "again.jsonl").exists()


def test_a_number_comes_with_its_unit(versions: Versions, positions: PositionFiles, tmp_path: Path) -> None:
    versions.show({("a", "width"): value("51 cm") | {"number": 51.0, "unit": "cm"}}, "run-1")
    for suffix in ("jsonl", "parquet"):
        written(versions, positions, tmp_path / f"changes.{suffix}", since="start")
    [row] = [row for row in lines(tmp_path / "changes.jsonl") if row["op"] == "upsert"]
    assert (row["values"], row["number"], row["unit"]) == (["51 cm"], 51.0, "cm")
    assert pq.read_table(tmp_path / "changes.parquet")["number"].to_pylist() == [None, 51.0, None]


def test_csv_and_parquet_have_the_same_rows(versions: Versions, positions: PositionFiles, tmp_path: Path) -> None:
    versions.show({("a", "color"): RED, ("b", "color"): value("Red", source="merchant")}, "run-1")
    for suffix in ("jsonl", "csv", "parquet"):
        written(versions, positions, tmp_path / f"changes.{suffix}", since="start")
    expected = lines(tmp_path / "changes.jsonl")
    newest = str(versions.position())
    assert [(row["op"], row.get("position")) for row in expected] == [
        ("reset", newest), ("upsert", None), ("upsert", None), ("end", newest),
    ]  # fmt: skip
    with (tmp_path / "changes.csv").open(newline="") as opened:
        found = list(csv.DictReader(opened))
    lists = {"values", "changed_by"}
    texts = [{name: json.loads(cell) if name in lists else cell for name, cell in row.items() if cell} for row in found]
    assert texts == [row | {"version": str(row["version"])} for row in expected]
    table = pq.read_table(tmp_path / "changes.parquet")
    assert table.schema.equals(change_files.SCHEMA)
    assert applied({}, table.to_pylist()) == versions.seen()


def test_a_consumer_gets_every_commit_once_whatever_kills_the_job(
    versions: Versions, positions: PositionFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was written before the kill is written again with the same name: files by name are the feed."""
    folder = tmp_path / "search"

    def come() -> dict[str, Any]:
        return written(versions, positions, folder, consumer="search")

    versions.show({("a", "color"): value("Red")}, "run-1")
    assert come()["kind"] == "snapshot"
    versions.show({("b", "color"): value("Red")}, "run-2")
    with monkeypatch.context() as patch:
        patch.setattr(PositionFiles, "move", _die)
        with pytest.raises(KeyboardInterrupt):
            come()
    second = folder / "changes-000000000001-000000000002.jsonl"
    second.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _die)
        with pytest.raises(KeyboardInterrupt):
            come()
    assert not second.exists(), "a file is there when it is complete"
    assert come()["status"] == "succeeded"
    versions.show({("b", "color"): value("Blue")}, "run-3")
    assert come()["deletes"] == 0
    assert come()["status"] == "nothing_to_do"
    names = [file.name for file in sorted(folder.iterdir(), key=lambda file: file.stem.split("-")[-1])]
    assert names == [
        "snapshot-000000000001.jsonl",
        "changes-000000000001-000000000002.jsonl",
        "changes-000000000002-000000000003.jsonl",
    ]
    have: State = {}
    for name in names:
        have = applied(have, (_times(row) for row in lines(folder / name)))
    assert {key: row["values"] for key, row in have.items()} == {("b", "color"): ["Blue"]}
    assert positions.of("search") == versions.position()


def _die(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(change_files.SCHEMA.names) | row


def test_net_tells_a_product_and_attribute_once(versions: Versions, positions: PositionFiles, tmp_path: Path) -> None:
    first = versions.show({}, "run-1")
    for number in range(2, 5):
        versions.show({("a", "color"): value("Red", step=number)}, f"run-{number}")
    each = written(versions, positions, tmp_path / "each.jsonl", since=str(first))
    net = written(versions, positions, tmp_path / "net.jsonl", since=str(first), net=True)
    assert (each["upserts"], net["upserts"], each["commits"], net["commits"]) == (3, 1, 3, 3)
    assert [row["version"] for row in lines(each["file"])] == [2, 3, 4, 4]
    assert lines(net["file"])[0]["changed_by"] == ["run-2", "run-3", "run-4"]


def test_a_file_that_is_there_is_not_replaced_unless_asked(
    versions: Versions, positions: PositionFiles, tmp_path: Path
) -> None:
    versions.show({("a", "color"): RED}, "run-1")
    target = tmp_path / "changes.jsonl"
    target.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        written(versions, positions, target, since="start")
    assert target.read_text() == "mine"
    written(versions, positions, target, since="start", overwrite=True)
    assert len(lines(target)) == 3
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        ({"output": "x.txt", "since": "start"}, "the suffix is none of csv, jsonl, parquet"),
        ({"output": "x.jsonl", "since": "yesterday"}, "'yesterday' is no position"),
        ({"output": "x.jsonl", "since": "an-id:3 and more"}, "is no position"),
        ({"output": "x.jsonl", "since": "the an-id:3"}, "is no position"),
        ({"output": "x", "consumer": "../x"}, "a name has letters, digits"),
        ({"output": "x", "consumer": ""}, "a name has letters, digits"),
        ({"output": "taken", "consumer": "search"}, "is a file; the files of a consumer are written into a folder"),
        ({"output": "x.jsonl", "run_id": "nosuch"}, "made no version"),
    ],
)
def test_what_cannot_be_asked(
    versions: Versions,
    positions: PositionFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_of: dict[str, str],
    says: str,
) -> None:
    versions.show({("a", "color"): RED}, "run-1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=says):
        export_changes(versions.catalog, positions, ChangesRequest(**request_of), say=lambda _: None)


def test_a_damaged_position_is_said(positions: PositionFiles) -> None:
    positions.move("search", Position("an-id", 3))
    assert positions.of("search") == Position("an-id", 3)
    assert positions.of("others") is None
    for text in ("", "{}", '{"position": 3}', '{"position": "x"}', "[]"):
        (positions.folder / "search.json").write_text(text)
        with pytest.raises(DataContractError, match="does not hold a position"):
            positions.of("search")


def test_the_status_tells_how_many_runs_each_consumer_lacks(
    database: Database, versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(config_file(tmp_path, database))

    def run(name: str, *arguments: str) -> dict[str, Any]:
        code, summary, _ = job(name, capsys, "--config", file, *arguments)
        assert code == 0, summary
        return summary

    versions.show({("a", "color"): value("Red")}, "run-1")
    (new,) = run("delivery_status", "--json")["consumers"]
    assert (new["snapshot"], new["moved_at"]) == ("the consumer has no position yet", None)
    run("export_changes", "--consumer", "search", "--output", str(tmp_path / "search"))
    versions.show({("a", "color"): value("Blue")}, "run-2")
    run("deliver_values")
    versions.show({("a", "color"): value("Green")}, "run-2")
    versions.show({}, "run-3")
    found = {row["consumer"]: row for row in run("delivery_status", "--json")["consumers"]}
    numbers = {name: (row["lag_commits"], row["lag_runs"]) for name, row in found.items()}
    assert numbers == {"postgres": (2, 2), "search": (3, 2)}
    assert found["search"]["waiting_runs"] == ["run-2", "run-3"]
    assert found["postgres"]["moved_at"]
    assert found["search"]["behind_since"] <= found["postgres"]["behind_since"]
    assert found["search"]["behind_seconds"] >= found["postgres"]["behind_seconds"] >= 0
    code, summary, output = job("delivery_status", capsys, "--config", file)
    assert (code, summary["listed"]) == (0, 2)
    printed = [line.rpartition(" delivery_status ")[2].split() for line in output.splitlines()]
    rows = [line for line in printed if line[:1] in (["postgres"], ["search"])]
    assert [row[:5] for row in rows] == [["postgres", "2", "4", "2", "2"], ["search", "1", "4", "3", "2"]]
    run("deliver_values")
    Maintenance(versions.catalog, 0).unreferenced_files(TABLE).delete()
    found = {row["consumer"]: row for row in run("delivery_status", "--json")["consumers"]}
    assert [found["postgres"][name] for name in ("lag_commits", "lag_runs", "snapshot")] == [0, 0, None]
    assert (found["search"]["lag_runs"], found["search"]["behind_since"]) == (None, None)
    assert "upkeep has deleted" in found["search"]["snapshot"]


def test_a_sink_that_is_away_does_not_hide_the_other_consumers(
    versions: Versions, positions: PositionFiles, tmp_path: Path
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    written(versions, positions, tmp_path / "search", consumer="search")
    nobody = DeliveryConfig(uri="postgresql://127.0.0.1:9/none")
    away, search = status.delivery_status(versions.catalog, nobody, positions)
    assert (away["consumer"], search["consumer"], search["lag_commits"]) == ("postgres", "search", 0)
    assert "127.0.0.1" in away["problem"]
    line = next(line for line in status.as_table([away, search]).splitlines() if line.split()[0] == "postgres")
    assert line.split()[:5] == ["postgres", "-", "-", "-", "-"]
    assert away["problem"].split()[-1] in line


def test_the_jobs_say_what_is_wrong_with_their_arguments(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(config_file(tmp_path, database))
    for arguments in (["--output", "x"], ["--output", "x", "--since", "start", "--run", "r"]):
        with pytest.raises(SystemExit) as ended:
            job("export_changes", capsys, "--config", file, *arguments)
        assert ended.value.code == 2
    code, summary, _ = job("deliver_values", capsys, "--config", file, "--migrate", "--dry-run")
    assert (code, summary["error"]) == (2, "ConfigError")
    code, summary, _ = job("deliver_values", capsys, "--config", file)
    assert (code, "run import_products first" in summary["message"]) == (2, True)
    code, summary, _ = job("deliver_values", capsys, "--config", file, "--migrate")
    assert (code, summary["revision"]) == (0, "0001")


def test_the_file_of_a_run_has_no_position_to_go_on_from(
    versions: Versions, positions: PositionFiles, tmp_path: Path
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-2")
    summary = written(versions, positions, tmp_path / "run.jsonl", run_id="run-2")
    rows = lines(tmp_path / "run.jsonl")
    assert [row["op"] for row in rows] == ["upsert", "end"]
    assert all("position" not in row for row in rows)
    assert "position" not in summary
