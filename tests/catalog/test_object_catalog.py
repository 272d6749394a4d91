"""A catalog in an object store does the same as in a folder: on a real S3 server, with Spark."""

from __future__ import annotations

import json
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import contract, failures
from catalog_enrichment.catalog import maintenance
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.maintenance import Maintenance
from catalog_enrichment.catalog.object_storage import ObjectStorage
from catalog_enrichment.catalog.reading import Piece, read_splits
from catalog_enrichment.errors import ConfigError, DataContractError, MissingFileError, TemporaryFailure
from catalog_enrichment.inputs.stored_pictures import StoredPictures

from ..object_store import CREDENTIALS
from .catalog_rows import START, event, frame, prediction, product, scanned

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ..object_store import ObjectStoreServer


@pytest.fixture
def place(object_store: ObjectStoreServer) -> ObjectStorage:
    return ObjectStorage(object_store.uri(f"catalog/{uuid.uuid4()}"), object_store.settings())


@pytest.fixture
def lake(place: ObjectStorage, spark: SparkSession) -> Catalog:
    return Catalog(place, spark, lease_seconds=2)


# the store


def test_a_file_is_there_whole_or_not_at_all(place: ObjectStorage) -> None:
    def killed() -> None:
        with place.sink("a/part") as file:
            file.write_bytes(b"half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert place.size("a/part") is None
    with place.below("a").sink("part") as file:
        file.write_bytes(b"whole")
    assert (place.read("a/part"), place.size("a/part"), place.size("nosuch")) == (b"whole", 5, None)
    with pytest.raises(FileNotFoundError):
        place.read("nosuch")


def test_only_the_first_makes_an_object_and_only_who_has_seen_it_changes_it(place: ObjectStorage) -> None:
    assert [place.put_new("a", text) for text in (b"1", b"2")] == [True, False]
    found = place.read_tagged("a")
    assert found is not None
    assert place.replace_tagged("a", b"3", found[1])
    assert place.replace_tagged("a", b"4", found[1]) is None
    assert place.read("a") == b"3"
    assert place.replace_tagged("nosuch", b"4", found[1]) is None
    assert json.loads(found[1]).keys() <= {"e_tag", "version"}
    assert place.read_tagged("nosuch") is None


def test_files_and_folders_are_listed_below_a_root_only(place: ObjectStorage) -> None:
    for path in ("a/x", "a/b/y", "ab/z", "c"):
        place.put(path, path.encode())
    assert sorted(file.path for file in place.files("a")) == ["a/b/y", "a/x"]
    assert sorted(file.path for file in place.below("a").files()) == ["b/y", "x"]
    assert [(file.path, file.size) for file in sorted(place.folders(), key=lambda file: file.path)] == [
        ("a", 8),
        ("ab", 4),
    ]
    assert [file.path for file in place.folders("a")] == ["a/b"]
    place.discard("a")
    assert sorted(file.path for file in place.files()) == ["ab/z", "c"]


def test_a_large_object_is_read_in_ranges(place: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"number": list(range(100_000)), "text": [str(number) * 20 for number in range(100_000)]})
    with place.sink("t.parquet") as file:
        pq.write_table(table, file, row_group_size=10_000)
    monkeypatch.setattr("catalog_enrichment.catalog.object_storage.WHOLE_BYTES", 100)
    ranges, fetched = obstore.get_range, []

    def counted(*arguments: Any, start: int, end: int) -> Any:
        fetched.append(end - start)
        return ranges(*arguments, start=start, end=end)

    monkeypatch.setattr(obstore, "get_range", counted)
    with place.parquet("t.parquet") as parquet:
        assert parquet.read_row_group(3, columns=["number"])["number"].to_pylist() == list(range(30_000, 40_000))
        size = place.size("t.parquet")
        assert size is not None
        assert 0 < sum(fetched) < size / 2
        assert parquet.read().equals(table)


def test_the_storage_travels_with_its_secrets_and_does_not_print_them(place: ObjectStorage) -> None:
    place.put("a", b"1")
    assert pickle.loads(pickle.dumps(place.below("x"))).below("y").uri == f"{place.uri}/x/y"
    assert pickle.loads(pickle.dumps(place)).read("a") == b"1"
    for secret in CREDENTIALS.values():
        assert secret not in f"{place!r} {place} {Catalog(place).location('runs')}"


@pytest.mark.parametrize(
    ("changed", "location", "error", "message"),
    [
        ({"aws_endpoint": "http://127.0.0.1:9"}, "s3://catalogs/x", TemporaryFailure, "does not answer"),
        ({}, "s3://no-such-bucket/x", ConfigError, "no such bucket"),
        ({"aws_nonsense": "1"}, "s3://catalogs/x", ConfigError, "aws_nonsense"),
        ({"timeout": "soon"}, "s3://catalogs/x", ConfigError, "catalog.storage"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_in_seconds_and_without_secrets(
    object_store: ObjectStoreServer, changed: dict[str, str], location: str, error: type[Exception], message: str
) -> None:
    settings = tuple(sorted((dict(object_store.settings()) | changed).items()))
    with pytest.raises(error, match=message) as raised:
        ObjectStorage(location, settings).check()
    assert not any(secret in str(raised.value) for secret in CREDENTIALS.values())


def test_a_store_that_refuses_the_credentials_is_a_config_error() -> None:
    """In the words of S3; moto takes every key."""
    refusal = OSError(
        "Generic S3 error: Error performing GET https://s3/bucket in 5ms - Server returned non-2xx status code: "
        "403 Forbidden: <Error><Code>InvalidAccessKeyId</Code>"
    )
    known = failures.recognised(refusal)
    assert isinstance(known, ConfigError)
    assert "AWS_ACCESS_KEY_ID" in str(known)
    assert isinstance(failures.recognised(OSError(str(refusal).replace("403 Forbidden", "503 Slow"))), ConfigError)
    down = OSError("Generic S3 error: Error performing PUT https://s3/b in 9s, after 12 retries - HTTP error: sending")
    assert isinstance(failures.recognised(down), TemporaryFailure)


# tasks that read


def test_a_task_reads_its_splits_once_whatever_batches_the_numbers_come_in(place: ObjectStorage) -> None:
    for name in "abc":
        with place.sink(name) as file:
            pq.write_table(pa.table({"id": [f"{name}{number}" for number in range(4)]}), file, row_group_size=1)
    splits = [[Piece("a", 1)], [Piece("b", 1, 0, 2)], [Piece("b", 1, 1, 2), Piece("c", 1)]]
    schema = pa.schema([("id", pa.string())])
    batches = [pa.RecordBatch.from_pydict({"id": ids}) for ids in ([3, 4], [], [5, 6, 7], [8])]

    def read(given: list[pa.RecordBatch]) -> list[str]:
        return [name for batch in read_splits(given, place, splits, 3, schema) for name in batch["id"].to_pylist()]

    assert read(batches[:1]) == ["b0", "b2"]
    assert read(batches) == ["b0", "b2", "b1", "b3", "c0", "c1", "c2", "c3"]
    assert read([]) == []


# tables, with Spark


def test_a_table_is_written_read_replaced_and_read_as_it_was(lake: Catalog, spark: SparkSession) -> None:
    assert (lake.version("products"), lake.read("products").count()) == (-1, 0)
    images = [{"bytes": None, "uri": "https://x", "version": "v"}]
    rows = [product(f"p{n}", title=f"t{n}", images=images, merchant_attributes={"color": ["Red", "Blue"]},
                    updated_at=START) for n in range(300)]  # fmt: skip
    written = frame(spark, "products", rows).repartition(3)
    assert lake.append("products", written, "import-1") == 300
    assert lake.append("products", written, "import-1") == 300, "again changes nothing (I5)"
    before = lake.version("products")
    read = lake.read("products")
    assert read.count() == 300
    assert sorted(map(str, read.collect())) == sorted(map(str, frame(spark, "products", rows).collect()))
    assert read.schema.fieldNames() == contract.columns("products")

    changed = frame(spark, "products", [product("p7", title="new"), product("new", title="new")])
    assert lake.replace_products("products", changed, changed.select("product_id"), "import-2") == 301
    few = lake.read("products", columns=["title", "product_id"])
    assert few.columns == ["title", "product_id"]
    assert few.where("title = 'new'").count() == 2
    assert lake.read("products", before).count() == 300
    assert lake.read("products", -1).count() == 0
    assert lake.tables.readable("products", before)
    joined = few.join(lake.read("products", before, ["product_id"]), "product_id").union(
        few.limit(1).select(few.columns)
    )
    assert joined.count() == 301
    assert lake.committed("products", "import-1")
    assert not lake.committed("products", "import-3")


def test_a_stage_is_computed_once_and_again_only_if_its_marker_is_gone(lake: Catalog, spark: SparkSession) -> None:
    accumulator, checkpoints = spark.sparkContext.accumulator(0), lake.checkpoints

    def count(batches: Any) -> Any:
        for batch in batches:
            accumulator.add(batch.num_rows)
            yield batch

    rows = frame(spark, "predictions", [prediction(f"p{n}", "color", "Red") for n in range(20)]).repartition(3)
    scored = rows.mapInArrow(count, rows.schema)
    assert not checkpoints.has("run-1", "scored")
    for attempt in (1, 2):
        stored = sorted(map(str, checkpoints.get_or_compute("run-1", "scored", scored).collect()))
        assert (stored, accumulator.value) == (sorted(map(str, rows.collect())), 20), attempt
    assert [checkpoints.has("run-1", name) for name in ("scored", "score")] == [True, False]
    [marker] = [file.path for file in lake.storage.files("_staging") if file.name == "_SUCCESS"]
    lake.storage.delete([marker])
    assert not checkpoints.has("run-1", "scored")
    again = checkpoints.get_or_compute("run-1", "scored", scored)
    assert (again.count(), accumulator.value) == (20, 40), "what the first attempt left is not read twice"
    assert checkpoints.get_or_compute("run-1", "nothing", rows.limit(0)).count() == 0
    assert checkpoints.get_or_compute("run-1", "nothing", rows).count() == 0
    with checkpoints.dropping("run-1", keep=("scored",)):
        assert [checkpoints.remember("run-1", "note", {"n": n}) for n in (1, 2)] == [{"n": 1}] * 2
    assert checkpoints.remember("run-1", "note", {"n": 2}) == {"n": 2}
    assert checkpoints.has("run-1", "scored")
    checkpoints.drop("run-1")
    assert list(lake.storage.files("_staging")) == []


@pytest.mark.parametrize(("content", "kind"), [(None, MissingFileError), (b"", DataContractError)])
def test_a_lost_or_empty_object_is_not_read_as_fewer_rows(lake: Catalog, content: bytes | None, kind: type) -> None:
    for number in (1, 2):
        lake.append_rows("products", [product(f"p{number}")], f"import-{number}")
    file = next(file.path for file in lake.storage.files("products") if file.name.endswith(".parquet"))
    lake.storage.delete([file])
    if content is not None:
        lake.storage.put(file, content)
    with pytest.raises(kind, match=file):
        scanned(lake, "products")
    with pytest.raises(Exception, match=file) as raised:
        lake.read("products").collect()
    found = failures.recognised(raised.value)
    assert type(found) is kind
    assert file in str(found)


def test_an_earlier_version_whose_log_entries_are_gone_is_not_taken_for_an_empty_one(lake: Catalog) -> None:
    for number in (1, 2):
        lake.append_rows("products", [product(f"p{number}")], f"import-{number}")
    delta = lake.tables.open("products")
    assert delta is not None
    delta.create_checkpoint()
    lake.storage.delete([f"products/_delta_log/{version:020}.json" for version in (0, 1)])
    assert not lake.tables.readable("products", 1)
    with pytest.raises(MissingFileError, match="version 1"):
        list(lake.tables.scan_differing("products", 1, 2))
    assert len(scanned(lake, "products")) == 2


# upkeep


def test_small_files_become_one_and_unneeded_files_go(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        lake.append_rows("attribute_values", [event(number)], f"run-{number:02d}")
    lake.confirm_current_values("refresh")
    before = scanned(lake, "attribute_values")
    with lake.writing():
        upkeep = Maintenance(lake, 0)
        assert upkeep.tables == ["attribute_values", "current_values"]
        assert upkeep.compact("attribute_values", upkeep.files_to_join("attribute_values", 3), "maintain-1") == 1
        assert sorted(map(str, scanned(lake, "attribute_values"))) == sorted(map(str, before))
        assert not lake.current_values_stale()
        lake.storage.put("attribute_values/part-killed.parquet", b"1234")
        # stores round times to seconds, and moto's are those of this machine
        monkeypatch.setattr(maintenance.time, "time", lambda now=maintenance.time.time: now() + 2)
        unneeded = upkeep.unreferenced_files("attribute_values")
        assert len(unneeded.paths) == 13
        unneeded.delete()
        assert len([file for file in lake.storage.files("attribute_values") if file.name.endswith(".parquet")]) == 1
        lake.checkpoints.remember("finished", "note", {})
        leftover = upkeep.leftover_folders({"finished"})
        assert [(folder.name, folder.size) for folder in leftover.paths] == [("finished", 2)]
        leftover.delete()
        assert list(lake.storage.folders("_staging")) == []
        assert upkeep.commits_since_checkpoint("attribute_values") == 14
        upkeep.shorten_log("attribute_values")
        assert upkeep.commits_since_checkpoint("attribute_values") == 0
        assert not upkeep.expired_log_entries("attribute_values").paths
    assert sorted(map(str, scanned(lake, "attribute_values"))) == sorted(map(str, before))
    assert lake.append_rows("attribute_values", [event(3)], "run-03") == 1, "its run is not forgotten"


def test_pictures_are_kept_by_content_and_go_when_no_product_names_them(
    lake: Catalog, place: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StoredPictures(place.below("pictures"))
    store.claim(place.uri)
    store.claim(place.uri)
    with pytest.raises(ConfigError, match=r"pictures of the catalog .*/\.\., not of s3://catalogs/another"):
        store.claim("s3://catalogs/another")
    for letter in "ab":
        store.put(letter * 64, b"picture")
    assert store.get("a" * 64) == b"picture"
    with pytest.raises(FileNotFoundError):
        store.get("c" * 64)
    own = [{"bytes": None, "uri": None, "version": "a" * 64}]
    lake.append_rows("products", [product("p", images=own)], "import-1")
    assert not Maintenance(lake, 24).unnamed_pictures(store).paths
    monkeypatch.setattr(maintenance.time, "time", lambda now=maintenance.time.time: now() + 2)
    unnamed = Maintenance(lake, 0).unnamed_pictures(store)
    assert [file.name for file in unnamed.paths] == ["b" * 64]
    unnamed.delete()
    assert [file.name for file in store.files()] == ["a" * 64]


def test_a_conditional_put_names_the_generation_where_the_store_has_them(
    place: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google compares the generation, obstore's `version`, and refuses a put that names the entity tag alone."""
    asked: list[Any] = []

    def put(_: Any, path: str, data: bytes, *, mode: Any) -> dict[str, Any]:
        asked.append(mode)
        return {"e_tag": "tag-2", "version": "8"}

    place.put("a", b"1")
    monkeypatch.setattr(obstore, "put", put)
    tag = place.replace_tagged("a", b"2", json.dumps({"e_tag": "tag-1", "version": "7"}))
    assert asked == [{"e_tag": "tag-1", "version": "7"}]
    assert tag is not None
    assert json.loads(tag) == {"e_tag": "tag-2", "version": "8"}
