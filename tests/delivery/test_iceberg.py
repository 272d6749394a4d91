"""Deliveries to an Iceberg table: exactly once, a snapshot per step, and only the files with changed rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table.snapshots import Operation, Summary
from sqlalchemy.exc import OperationalError

from catalog_enrichment.delivery import deliver, differences, feed, iceberg, iceberg_files, iceberg_sink
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure

from ..postgres_server import free_port
from ..sample_catalog import KilledError, killed_at
from .histories import KINDS, State, Versions, World, value
from .iceberg_tables import IcebergTable, config_of, new_table


@pytest.fixture
def iceberg_table(tmp_path: Path) -> IcebergTable:
    return new_table(tmp_path / "lake")


def test_the_table_has_what_readers_saw_after_every_step(iceberg_table: IcebergTable, versions: Versions) -> None:
    world, steps = World(products={"a", "b", "c"}), 0
    for step, kind in enumerate(("run", "merchant", "run", *KINDS, "run", "roll_back", "roll_back"), 1):
        world.act(kind, ({"a", "b"}, {"b", "c"}, {"a"})[step % 3], step)
        versions.show(world.seen(), f"run-{step}")
        if step % 2:
            summary = iceberg_table.deliver(versions)
            steps += summary["steps"]
            assert iceberg_table.rows() == versions.seen() == world.seen()
            assert summary["position"] == str(versions.position())
    summaries = iceberg_table.summaries()
    assert len(summaries) == steps, "a snapshot per step"
    assert [summary["catalog-enrichment.kind"] for summary in summaries] == ["snapshot"] + ["changes"] * (steps - 1)
    numbers = [int(summary[iceberg.POSITION].rpartition(":")[2]) for summary in summaries]
    assert numbers == list(range(1, versions.position().version + 1))
    assert summaries[-1]["catalog-enrichment.runs"] == f"run-{versions.position().version}"


def test_running_again_changes_nothing_and_says_so(iceberg_table: IcebergTable, versions: Versions) -> None:
    """I5"""
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    first = iceberg_table.deliver(versions)
    assert (first["status"], first["upserted"], first["snapshot"]) == (
        "succeeded", 2, "the consumer has no position yet",
    )  # fmt: skip
    assert (first["sink"], first["where"]) == ("iceberg", iceberg.place(iceberg_table.config.iceberg))
    again = iceberg_table.deliver(versions)
    assert (again["status"], again["steps"], again["staged"]) == ("nothing_to_do", 0, 0)
    assert len(iceberg_table.summaries()) == 1


def test_rows_keep_the_version_that_changed_them(iceberg_table: IcebergTable, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    iceberg_table.deliver(versions)
    newest = versions.show({("a", "color"): value("Red"), ("b", "color"): value("Blue")}, "run-2")
    iceberg_table.deliver(versions)
    assert iceberg_table.versions() == {"a": newest.version - 1, "b": newest.version}
    strays = [{"product_id": name, "attribute": "color", **value("Red"), "version": 1} for name in ("aa", "stray")]
    iceberg_table.table().append(pa.Table.from_pylist(strays, iceberg.schema()))
    summary = iceberg_table.deliver(versions, snapshot=True)
    assert (summary["upserted"], summary["deleted"], summary["snapshot"]) == (0, 2, "it was asked for")
    assert iceberg_table.versions() == {"a": newest.version - 1, "b": newest.version}


def test_a_step_without_rows_moves_the_position(iceberg_table: IcebergTable, versions: Versions) -> None:
    state = {("a", "color"): value("Red")}
    versions.show({}, "run-0")
    for number in (1, 2):
        versions.show(state, f"run-{number}")
    summary = iceberg_table.deliver(versions)
    newest = versions.show(state, "run-3")
    files = iceberg_table.files()
    summary = iceberg_table.deliver(versions)
    assert (summary["steps"], summary["upserted"], summary["position"]) == (1, 0, str(newest))
    assert (iceberg_table.files(), iceberg_table.rows()) == (files, state)
    versions.show({}, "run-4")
    assert iceberg_table.deliver(versions)["deleted"] == 1
    assert iceberg_table.rows() == {}
    versions.show(state, "run-5")
    assert iceberg_table.deliver(versions)["upserted"] == 1
    assert iceberg_table.rows() == state


def many(number: int, **changed: Any) -> State:
    """Products p0000, p0001, ... with two attributes."""
    names = [f"p{index:04}" for index in range(number)]
    state = {(name, attribute): value("Red") for name in names for attribute in ("color", "material")}
    return state | {(name, "color"): value(given) for name, given in changed.items()}


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iceberg_files, "ROWS_PER_FILE", 20)
    monkeypatch.setattr(differences, "ROWS_AT_A_TIME", 64)
    monkeypatch.setattr(differences, "SAMPLED", 4)


@pytest.mark.usefixtures("small_files")
def test_only_files_with_a_changed_row_are_written_again(iceberg_table: IcebergTable, versions: Versions) -> None:
    versions.show(many(100), "run-1")
    assert iceberg_table.deliver(versions)["upserted"] == 200
    before = iceberg_table.files()
    assert 5 <= len(before) <= 10
    state = many(100, p0003="Blue", p0004="Green")
    del state["p0099", "material"]
    state["p0000a", "color"] = state["a", "color"] = state["z", "color"] = value("Blue")
    newest = versions.show(state, "run-2")
    summary = iceberg_table.deliver(versions)
    assert (summary["upserted"], summary["deleted"]) == (5, 1)
    assert iceberg_table.rows() == state
    after = iceberg_table.files()
    assert len(before - after) == 2, "the first and the last"
    assert iceberg_table.versions()["p0003"] == newest.version
    assert iceberg_table.versions()["p0005"] == newest.version - 1
    # a snapshot of everything is one file after the other, too, and takes away what the table has besides
    gone = {key: row for key, row in state.items() if key[0] < "p005"}
    versions.show(gone, "run-3")
    summary = iceberg_table.deliver(versions, snapshot=True)
    assert (summary["upserted"], summary["deleted"]) == (0, len(state) - len(gone))
    assert iceberg_table.rows() == gone


@pytest.mark.usefixtures("small_files")
def test_a_product_is_in_one_file_and_files_do_not_overlap(iceberg_table: IcebergTable, versions: Versions) -> None:
    """Ids with a long common beginning, of which Iceberg's statistics keep 16 characters by default."""
    state = {(f"{'x' * 30}{number:03}", attribute): value("Red") for number in range(50) for attribute in "abcdefg"}
    versions.show(state, "run-1")
    iceberg_table.deliver(versions)
    assert len(iceberg_table.files()) > 5
    groups = iceberg_files._groups(iceberg_table.table())
    assert [len(group.tasks) for group in groups] == [1] * len(groups)
    for number in range(50):
        state[f"{'x' * 30}{number:03}", "a"] = value("Blue")
    versions.show(state, "run-2")
    assert iceberg_table.deliver(versions)["upserted"] == 50
    assert iceberg_table.rows() == state
    groups = iceberg_files._groups(iceberg_table.table())
    assert [len(group.tasks) for group in groups] == [1] * len(groups)


@pytest.mark.usefixtures("small_files")
def test_a_snapshot_of_what_the_table_has_writes_no_file(iceberg_table: IcebergTable, versions: Versions) -> None:
    versions.show(many(30), "run-1")
    iceberg_table.deliver(versions)
    files = iceberg_table.files()
    summary = iceberg_table.deliver(versions, snapshot=True)
    assert (summary["staged"], summary["upserted"], summary["deleted"]) == (60, 0, 0)
    assert iceberg_table.files() == files
    stored = {f"file://{file}" for file in iceberg_table.folder.rglob("*.parquet")}
    assert stored == files, "files that turn out to be the same are deleted again"
    assert iceberg_table.rows() == versions.seen()


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("rows", [1, 3])
def test_batches_may_end_anywhere(rows: int, iceberg_table: IcebergTable, versions: Versions) -> None:
    """Also between two attributes of a product."""
    versions.show(many(30), "run-1")
    iceberg_table.deliver(versions)
    state = {key: value("Blue") for key in many(30)}
    versions.show(state, "run-2")
    with deliver.open_sink(iceberg_table.config) as sink:
        since = sink.position()
        (step,) = feed.steps(versions.catalog, since, 20)
        whole = pa.Table.from_batches(step.changes(versions.catalog))
        applied = sink.apply(step, since, whole.to_batches(max_chunksize=rows))
    assert (applied.staged, applied.upserted, applied.deleted) == (60, 60, 0)
    assert iceberg_table.rows() == state


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    "file_of", [lambda row: row % 2, lambda row: int(row > 40), lambda row: 0 if row in (0, 119) else 1 + row // 62]
)
def test_files_of_another_program_may_overlap(
    file_of: Callable[[int], int], iceberg_table: IcebergTable, versions: Versions
) -> None:
    """As a compaction leaves them that does not sort, that splits a product, or that leaves a file around all others;
    its snapshot has no position, and the delivery goes on."""
    versions.show(many(60), "run-1")
    iceberg_table.deliver(versions)
    table = iceberg_table.table()
    rows = table.scan().to_arrow().sort_by([("product_id", "ascending"), ("attribute", "ascending")]).to_pylist()
    files = sorted({file_of(number) for number in range(120)})
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as snapshot:
        snapshot._summary = lambda _: Summary(Operation.REPLACE)
        for written in files:
            of_file = [row for number, row in enumerate(rows) if file_of(number) == written]
            mixed = pa.Table.from_pylist(of_file, iceberg.schema())
            for file in iceberg_files_written(table, mixed):
                snapshot.append_data_file(file)
        for task in table.scan().plan_files():
            snapshot.delete_data_file(task.file)
    assert [len(group.tasks) for group in iceberg_files._groups(iceberg_table.table())] == [len(files)]
    state = many(60, p0020="Blue")
    versions.show(state, "run-2")
    summary = iceberg_table.deliver(versions)
    assert (summary["snapshot"], summary["upserted"]) == (None, 1)
    assert iceberg_table.rows() == state


@pytest.mark.usefixtures("small_files")
def test_files_of_another_program_may_lack_bounds(iceberg_table: IcebergTable, versions: Versions) -> None:
    versions.show(many(60), "run-1")
    iceberg_table.deliver(versions)
    bounds, table = "write.metadata.metrics.column.product_id", iceberg_table.table()
    rows = table.scan().to_arrow().sort_by("product_id").to_pylist()
    tasks = list(table.scan().plan_files())
    for kept, part in (("none", rows[:60]), ("full", rows[60:])):
        with table.transaction() as transaction:
            transaction.set_properties({bounds: kept})
        with table.transaction() as transaction, transaction.update_snapshot().overwrite() as snapshot:
            snapshot._summary = lambda _: Summary(Operation.REPLACE)
            for file in iceberg_files_written(table, pa.Table.from_pylist(part, iceberg.schema())):
                snapshot.append_data_file(file)
            for task in tasks:
                snapshot.delete_data_file(task.file)
            tasks = []
    assert [len(group.tasks) for group in iceberg_files._groups(iceberg_table.table())] == [2]
    state = many(60, p0010="Blue", p0050="Blue")
    versions.show(state, "run-2")
    assert iceberg_table.deliver(versions)["upserted"] == 2
    assert iceberg_table.rows() == state


def iceberg_files_written(table: Any, rows: pa.Table) -> list[Any]:
    from pyiceberg.io.pyarrow import _dataframe_to_data_files

    return list(_dataframe_to_data_files(table.metadata, rows, table.io))


@pytest.mark.parametrize("gone", ["product_id = 'a'", "attribute = 'color'"])
def test_rows_that_another_program_deleted_are_there_again(
    gone: str, iceberg_table: IcebergTable, versions: Versions, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {("a", "color"): value("Red"), ("b", "color"): value("Red"), ("b", "material"): value("Wool")}
    versions.show(state, "run-1")
    iceberg_table.deliver(versions)
    assert "another program" not in capsys.readouterr().err
    iceberg_table.table().delete(gone)
    assert iceberg_table.rows() != state
    iceberg_table.deliver(versions)
    assert iceberg_table.rows() == state
    assert "warning: another program changed rows of the table enriched.delivered_values" in capsys.readouterr().err
    assert iceberg_table.deliver(versions)["steps"] == 0


def test_a_table_that_was_rolled_back_is_brought_forward_again(iceberg_table: IcebergTable, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    iceberg_table.deliver(versions)
    state = {("a", "color"): value("Blue")}
    for number in (2, 3):
        versions.show(state, f"run-{number}")
    iceberg_table.deliver(versions)
    table = iceberg_table.table()
    table.manage_snapshots().rollback_to_snapshot(table.snapshots()[0].snapshot_id).commit()
    summary = iceberg_table.deliver(versions)
    assert (summary["steps"], summary["snapshot"]) == (2, None)
    assert iceberg_table.rows() == state


def test_a_product_that_is_twice_in_the_catalog_is_not_delivered(
    iceberg_table: IcebergTable, versions: Versions
) -> None:
    versions.show_twice({("a", "color"): value("Red"), ("b", "color"): value("Red")}, ("b", "color"))
    with pytest.raises(DataContractError, match=r"several rows of the product 'b'.*RUNBOOK"):
        iceberg_table.deliver(versions)
    assert iceberg_table.rows() == {}


# --- killed, or two at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["run", "_commit"])
def test_i4_a_delivery_that_dies_leaves_the_step_before_and_is_finished_by_the_next(
    place: str, iceberg_table: IcebergTable, versions: Versions
) -> None:
    first = {("a", "color"): value("Red")}
    versions.show(first, "run-1")
    iceberg_table.deliver(versions)
    versions.show(first | {("b", "color"): value("Blue")}, "run-2")
    owner = iceberg_files.Rewriting if place == "run" else iceberg_sink.IcebergSink
    with killed_at(owner, place):
        iceberg_table.deliver(versions)
    assert iceberg_table.rows() == first
    summary = iceberg_table.deliver(versions)
    assert (summary["steps"], summary["upserted"]) == (1, 1)
    assert iceberg_table.rows() == versions.seen()


def test_a_delivery_that_dies_after_the_commit_is_not_applied_twice(
    iceberg_table: IcebergTable, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    commit = iceberg_sink.IcebergSink._commit

    def dies_afterwards(*arguments: Any) -> None:
        commit(*arguments)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(iceberg_sink.IcebergSink, "_commit", dies_afterwards)
        with pytest.raises(KilledError):
            iceberg_table.deliver(versions)
    assert iceberg_table.deliver(versions)["status"] == "nothing_to_do"
    assert iceberg_table.rows() == versions.seen()


def test_of_two_deliveries_at_once_the_second_applies_nothing(iceberg_table: IcebergTable, versions: Versions) -> None:
    """Both have read the position, and both write files; also the first delivery of all, which only adds rows."""

    def while_another_delivers(changes: list[pa.RecordBatch], written: set[str]) -> Iterator[pa.RecordBatch]:
        iceberg_table.deliver(versions)
        written |= iceberg_table.files()
        yield from changes

    for number in (1, 2):
        versions.show({(f"p{index}", "color"): value("Red") for index in range(number)}, f"run-{number}")
        before, written = len(iceberg_table.summaries()), set[str]()
        with deliver.open_sink(iceberg_table.config) as sink:
            since = sink.position()
            (step,) = feed.steps(versions.catalog, since, 20)
            changes = list(step.changes(versions.catalog))

            with pytest.raises(TemporaryFailure, match="another delivery or program changed it"):
                sink.apply(step, since, while_another_delivers(changes, written))
        assert iceberg_table.rows() == versions.seen()
        assert len(iceberg_table.summaries()) == before + 1
        assert iceberg_table.files() == written
        stored = {str(file) for file in iceberg_table.folder.rglob("*.parquet")}
        assert {file.removeprefix("file://") for file in written} <= stored
        assert len(stored) == number, "the second delivery's files are deleted"


def test_a_step_begins_only_from_the_position_that_it_starts_at(
    iceberg_table: IcebergTable, versions: Versions
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    (step,) = feed.steps(versions.catalog, None, 20)
    iceberg_table.deliver(versions)
    with deliver.open_sink(iceberg_table.config) as sink, pytest.raises(TemporaryFailure, match=r"now it is at .*:\d"):
        sink.apply(step, None, step.changes(versions.catalog))


def test_i4_readers_see_all_of_a_run_or_none_of_it(iceberg_table: IcebergTable, versions: Versions) -> None:
    done, torn = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen = {tuple(row["values"]) for row in iceberg_table.rows().values()}
            if len(seen) > 1:
                torn.append(seen)

    versions.show({(f"p{number}", "color"): value("0") for number in range(9)}, "run-0")
    iceberg_table.deliver(versions)
    reader = threading.Thread(target=read)
    reader.start()
    for run in range(1, 6):
        versions.show({(f"p{number}", "color"): value(str(run)) for number in range(9)}, f"run-{run}")
        iceberg_table.deliver(versions)
    done.set()
    reader.join()
    assert torn == []


# --- the table --------------------------------------------------------------------------------------------------------


def test_migrate_makes_the_table_once_and_mends_its_properties(tmp_path: Path, versions: Versions) -> None:
    (tmp_path / "lake").mkdir()
    config = config_of(tmp_path / "lake")
    versions.show({("a", "color"): value("Red")}, "run-1")
    with pytest.raises(DataContractError, match="deliver_values --migrate"):
        deliver.deliver_values(versions.catalog, config, say=lambda _: None)
    made = deliver.migrate(config, say=lambda _: None)
    assert (made["revision_before"], made["revision"]) == (None, "1")
    found = IcebergTable(tmp_path / "lake", config)
    with found.table().transaction() as transaction:
        transaction.set_properties({"commit.retry.num-retries": "0"})
    with pytest.raises(DataContractError, match=r"commit\.retry\.num-retries = 0.*: run deliver_values --migrate"):
        found.deliver(versions)
    assert deliver.migrate(config, say=lambda _: None)["revision_before"] == "1"
    assert found.deliver(versions)["upserted"] == 1
    with found.table().transaction() as transaction:
        transaction.remove_properties("commit.retry.num-retries", "write.metadata.metrics.column.product_id")
    assert found.deliver(versions)["status"] == "nothing_to_do", "a catalog may leave properties out"


def test_of_two_migrations_at_once_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    (tmp_path / "lake").mkdir()
    config, create = config_of(tmp_path / "lake"), SqlCatalog.create_namespace_if_not_exists

    def while_another_migrates(*arguments: Any) -> None:
        monkeypatch.setattr(SqlCatalog, "create_namespace_if_not_exists", create)
        create(*arguments)
        assert deliver.migrate(config, say=lambda _: None)["revision"] == "1"

    monkeypatch.setattr(SqlCatalog, "create_namespace_if_not_exists", while_another_migrates)
    assert deliver.migrate(config, say=lambda _: None)["revision"] == "1"


def test_a_table_of_another_program_is_refused_and_stays(tmp_path: Path, versions: Versions) -> None:
    found = new_table(tmp_path / "lake")
    versions.show({("a", "color"): value("Red")}, "run-1")
    with found.table().update_schema() as update:
        update.delete_column("source")
    for act in (lambda: found.deliver(versions), lambda: deliver.migrate(found.config, say=lambda _: None)):
        with pytest.raises(DataContractError, match=r"changed the columns .*: missing source string; unknown none"):
            act()
    newer = new_table(tmp_path / "other")
    with newer.table().transaction() as transaction:
        transaction.set_properties({"catalog-enrichment.revision": "2"})
    with pytest.raises(DataContractError, match="has the revision 2, which this program does not know"):
        newer.deliver(versions)


def test_a_file_of_the_table_that_is_gone_is_no_bug(iceberg_table: IcebergTable, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    iceberg_table.deliver(versions)
    for file in iceberg_table.files():
        Path(file.removeprefix("file://")).unlink()
    versions.show({("a", "color"): value("Blue")}, "run-2")
    with pytest.raises(DataContractError, match=r"If a file of the table was deleted"):
        iceberg_table.deliver(versions)


def test_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    (tmp_path / "lake").mkdir()
    store = {"s3.endpoint": f"http://127.0.0.1:{free_port()}", "s3.region": "us-east-1"}
    config = config_of(tmp_path / "lake", warehouse="s3://bucket/lake", properties=store)
    with pytest.raises(TemporaryFailure, match=r"NETWORK_CONNECTION.* run again when the store answers"):
        deliver.migrate(config, say=lambda _: None)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("When reading 'x': AWS Error ACCESS_DENIED during PutObject operation: Forbidden", ConfigError),
        (
            "When listing: AWS Error UNKNOWN (HTTP status 403) during HeadObject operation: No response body.",
            ConfigError,
        ),
        ("When reading 'x': AWS Error SLOW_DOWN during PutObject operation", TemporaryFailure),
        (OSError(28, "No space left on device"), type(None)),
    ],
)
def test_what_a_store_answers(answer: str | OSError, kind: type, tmp_path: Path) -> None:
    problem = answer if isinstance(answer, OSError) else OSError(answer)
    assert type(iceberg.translated(problem, config_of(tmp_path).iceberg, "")) is kind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uri": "postgresql://a/b"}, r"must be http\(s\)://HOST/PATH or sqlite:////FILE"),
        ({"uri": "sqlite:///relative.db"}, "an absolute path"),
        ({"uri": "https://user:pw@host/x"}, "has a password"),
        ({"properties": {"s3.secret-access-key": "x"}}, "has a password"),
        ({"warehouse": ""}, "a sqlite catalog needs a folder or URI"),
        ({"table": "values"}, r"must be NAMESPACE\.TABLE"),
        ({"table": "A.b"}, r"must be NAMESPACE\.TABLE"),
    ],
)
def test_a_config_that_cannot_be_used(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path, **settings)


def test_a_catalog_file_that_cannot_be_opened_or_is_in_use(iceberg_table: IcebergTable) -> None:
    config = config_of(iceberg_table.folder, uri=f"sqlite:///{iceberg_table.folder}/no/such/catalog.db")
    with pytest.raises(ConfigError, match=r"values at /\S+/no/such/catalog\.db: .*a file that can be written"):
        deliver.migrate(config, say=lambda _: None)
    locked = OperationalError("UPDATE", {}, Exception("database is locked"))
    assert type(iceberg.translated(locked, config.iceberg, "")) is TemporaryFailure


def test_without_an_address_or_the_tokens_variable(tmp_path: Path) -> None:
    config = config_of(tmp_path, login_variable="NO_SUCH_VARIABLE")
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE, which is empty"), deliver.open_sink(config):
        pass
    empty = replace(config, iceberg=replace(config.iceberg, uri="", login_variable=""))
    with pytest.raises(ConfigError, match=r"delivery\.iceberg\.uri is empty"), deliver.open_sink(empty):
        pass
