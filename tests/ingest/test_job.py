"""The import job on a real catalog: bad input, changed and unchanged products, pictures, killed runs (I1, I5, I7)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import failures
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused, TemporaryFailure
from catalog_enrichment.ingest import job, product_pictures
from catalog_enrichment.inputs.stored_pictures import StoredPictures

from ..catalog.catalog_rows import prediction, run_row
from ..clock import set_back
from ..sample_catalog import jpeg, killed_at
from .shop import Shop

Row = dict[str, Any]
PICTURE = jpeg((200, 30, 30))
SOURCE: Row = {
    "format": "jsonl",
    "path": "feed.jsonl",
    "mapping": {"attributes": {"color": "color"}, "updated_at": "at", "opt_out": "off"},
}
NOTHING_WRITTEN = {"products": -1, "quarantine": -1, "current_values": -1}


class FeedShop(Shop):
    def run(self, lines: list[Row | str] | list[Row], **source: Any) -> Row:
        """Import a feed of these lines; the same lines are the same file, with the time that it had."""
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        feed = self.folder / "feed.jsonl"
        if not feed.exists() or feed.read_text(encoding="utf-8") != text:
            feed.write_text(text, encoding="utf-8")
        return self.imported(**source)


@pytest.fixture
def shop(spark: Any, tmp_path: Path) -> FeedShop:
    return FeedShop(spark, tmp_path, SOURCE)


def _good(number: int, **other: Any) -> Row:
    row = {"product_id": f"p{number}", "title": f"shirt {number}", "color": "gray", "at": "2026-01-01", "off": False}
    return row | other


BAD = _good(0, title=None, product_id="bad")


def _adds_up(summary: Row) -> bool:
    """products = new + changed + unchanged + quarantined (I7)."""
    parts = [summary["new"], summary["changed"], summary["unchanged"], *summary["quarantined"].values()]
    return bool(summary["products"] == sum(parts))


# --- what becomes of the rows -----------------------------------------------------------------------------------------


CORPUS: list[Row | str] = [
    *[_good(n) for n in range(150)],
    _good(3, title="newer", at="2026-02-01"),
    _good(4, at="2025-01-01"),
    '{"product_id": "cut", "title": "a shi',
    _good(1000, product_id=None),
    _good(1001, title=""),
    _good(1002, title=None),
    _good(1003, title=["a", "list"]),
    _good(1004, off="perhaps"),
    _good(1005, description="x" * 1_000_000),
    r'{"product_id": "nul", "title": "a\u0000b"}',
    r'{"product_id": "surrogate", "title": "a\ud800b"}',
    _good(0, product_id="emoji", title="👗 dress", color="see picture"),
    _good(0, product_id="rtl", title="\u202eقميص"),
]


def test_bad_rows_are_quarantined_the_rest_is_imported_and_a_second_run_changes_nothing_i1_i5_i7(
    shop: FeedShop,
) -> None:
    with_description = {"description": "description"}
    summary = shop.run(CORPUS, mapping=with_description)
    assert (summary["status"], summary["products"]) == ("succeeded", len(CORPUS))
    assert _adds_up(summary)
    assert summary["quarantined"] == {
        **{"unparseable_row": 3, "missing_id": 1, "empty_title": 2, "text_too_long": 1, "duplicate_id": 2}
    }
    products = shop.products()
    assert len(products) == summary["new"] == 154
    assert [products[name]["title"] for name in ("p3", "nul", "emoji")] == ["newer", "a\0b", "👗 dress"]
    # I1: the canonical value, or as it was if the dictionary has none
    assert products["p0"]["merchant_attributes"] == {"color": ["Grey"]}
    assert products["emoji"]["merchant_attributes"] == {"color": ["see picture"]}
    assert summary["merchant_values"] == {"color": {"mapped": 151, "unmapped": 1}}
    [seen] = [row for row in shop.rows("current_values") if row["product_id"] == "emoji"]
    assert (seen["attribute"], seen["values"], seen["source"]) == ("color", ["see picture"], "merchant")
    quarantined = shop.rows("quarantine")
    assert len(quarantined) == 9
    assert {(row["stage"], row["run_id"]) for row in quarantined} == {("import", summary["run_id"])}
    assert max(len(row["payload"]) for row in quarantined) == 2000
    [run] = shop.rows("runs")
    assert dict(run["counts"])["rows"] == len(CORPUS)
    assert json.loads(run["validation"])["success"]
    attributes = json.loads(run["attributes"])
    assert [(value, number) for value, _, number in attributes["unmapped_value"]["color"]] == [("see picture", 1)]
    assert attributes["shops"]["shops"] == {"default": summary["quarantined"] | {"unmapped_value.color": 1}}

    tables = ("products", "quarantine", "runs", "current_values")
    before = shop.versions(*tables)
    again = shop.run(CORPUS, mapping=with_description)
    assert (again["status"], again["run_id"], again["new"], again["changed"]) == ("nothing_to_do", None, 0, 0)
    assert again["unchanged"] == 154
    assert _adds_up(again)
    assert shop.versions(*tables) == before
    assert not list((shop.folder / "catalog").glob("_staging/*"))


def test_a_row_replaces_its_product_and_absent_products_stay(shop: FeedShop) -> None:
    undated = {"updated_at": ""}
    shop.run([_good(n) for n in range(4)], mapping=undated)
    before = shop.products()
    summary = shop.run([_good(0), _good(1, color="Red"), _good(2, title="other"), _good(9)], mapping=undated)
    after = shop.products()
    assert (summary["new"], summary["changed"], summary["unchanged"]) == (1, 2, 1)
    assert set(after) == {"p0", "p1", "p2", "p3", "p9"}
    assert (after["p0"], after["p3"]) == (before["p0"], before["p3"])
    assert after["p1"]["merchant_attributes"] == {"color": ["Red"]}
    assert after["p1"]["content_hash"] == before["p1"]["content_hash"]
    assert after["p1"]["updated_at"] > before["p1"]["updated_at"]
    assert after["p2"]["content_hash"] != before["p2"]["content_hash"]
    # the first snapshot again: a new run, with another id
    shop.run([_good(n) for n in range(4)], mapping=undated)
    assert shop.products()["p1"]["merchant_attributes"] == {"color": ["Grey"]}
    assert len({row["run_id"] for row in shop.rows("runs")}) == 3


@pytest.mark.slow
def test_imports_have_an_order_where_the_clock_is_set_back(shop: FeedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """X, Y, X, Y, the files with the times they had before: the second Y is another run than the first."""
    ids = []
    for step, title in enumerate(("X", "Y", "X", "Y")):
        set_back(monkeypatch, step)
        (shop.folder / "feed.jsonl").write_text(json.dumps(_good(1, title=title)))
        os.utime(shop.folder / "feed.jsonl", ns=(0, ord(title) * 10**9))
        ids.append(shop.run([_good(1, title=title)])["run_id"])
        assert shop.products()["p1"]["title"] == title
    assert len(set(ids)) == 4


@pytest.mark.slow
def test_files_that_were_imported_before_are_not_read(shop: FeedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = shop.folder / "1.jpg"
    picture.write_bytes(PICTURE)
    lines = [_good(1, image="1.jpg"), *[_good(n) for n in range(2, 21)], BAD]
    mapping = {"image_uris": "image"}
    first = shop.run(lines, mapping=mapping)
    with monkeypatch.context() as patch:
        patch.setattr(job, "read_products", None)
        again = shop.run(lines, mapping=mapping)
    expected = first | {"status": "nothing_to_do", "run_id": None, "new": 0, "unchanged": 20, "pictures_tried": 0}
    assert again | {"seconds": 0} == expected | {"seconds": 0}

    os.utime(picture, (1, 1))  # the feed names the same file, which is another picture now
    assert shop.run(lines, mapping=mapping)["changed"] == 1
    assert shop.run(lines, mapping=mapping | {"default_shop": "other"})["changed"] == 20


# --- sources that are refused -----------------------------------------------------------------------------------------


def test_a_snapshot_with_a_tenth_of_the_last_rows_is_refused_and_nothing_is_written(shop: FeedShop) -> None:
    shop.run([_good(n) for n in range(100)])
    before = shop.versions()
    with pytest.raises(DataContractError, match=r"nothing was written:\n.*expected at least 50 rows.*observed 10"):
        shop.run([_good(n) for n in range(10)])
    assert shop.versions() == before
    assert [(row["status"], row["attempt"]) for row in shop.rows("runs")].count(("failed", 1)) == 1
    assert shop.run([_good(n) for n in range(60)])["status"] == "nothing_to_do"


@pytest.mark.slow
def test_a_feed_that_drifts_is_refused_or_read_right_and_nothing_is_lost(shop: FeedShop) -> None:
    """A column that lost its values, and ids that became floats, passed as an import like any other."""
    week1 = [_good(number) | {"product_id": number} for number in range(40)]
    shop.run(week1)
    before = shop.versions()
    with pytest.raises(DataContractError, match=r"3 values of color for 40 products.*had 40.*min_attribute_ratio=0"):
        shop.run([row | {"color": "gray" if row["product_id"] < 3 else None, "at": "2026-02-01"} for row in week1])
    assert shop.versions() == before
    week3 = shop.run([row | {"product_id": float(row["product_id"])} for row in week1])
    assert week3["unchanged"] == 40
    assert set(shop.products()) == {str(number) for number in range(40)}
    emptied = shop.run([row | {"color": None, "at": "2026-02-01"} for row in week1], min_attribute_ratio=0.0)
    assert emptied["changed"] == 40


@pytest.mark.slow
def test_a_category_of_the_dictionary_that_no_product_is_in_is_named(shop: FeedShop) -> None:
    words = {"name": "color", "cardinality": "one", "values": ["Gray"], "categories": ["Apparel", "Aparel > Shirts"]}
    (shop.folder / "words.json").write_text(json.dumps({"attributes": [words]}))
    rows = [_good(1, cat="Apparel > Shirts"), _good(2, cat="apparel/shirts/")]
    shop.run([{**row, "color": "GRAY"} for row in rows], dictionary="words.json", mapping={"category": "cat"})
    warning = next(line for line in shop.said if line.startswith("warning: no product"))
    assert "'Aparel/Shirts' (color)" in warning
    assert "'Apparel/Shirts'" in warning


def test_rows_that_are_merged_into_products_are_counted_i7(shop: FeedShop) -> None:
    others = [f"c{number},Shirt,Red," for number in range(20)]
    lines = [
        "Handle,Title,Color,Picture",
        "a,Shirt,Red,a.jpg",
        "a,,Blue,b.jpg",
        "b,Hat,Red,",
        "b,,,",
        ",No id,,",
        *others,
    ]
    (shop.folder / "export.csv").write_text("\n".join(lines))
    mapping = {
        "product_id": "Handle",
        "title": "Title",
        "attributes": {"color": "Color"},
        "updated_at": "",
        "opt_out": "",
    }
    summary = shop.imported(format="csv", path="export.csv", variants={"same_id": True}, mapping=mapping)
    assert (summary["products"], summary["merged_rows"], summary["new"]) == (23, 2, 22)
    assert summary["quarantined"] == {"missing_id": 1}
    assert shop.products()["a"]["merchant_attributes"]["color"] == ["Red", "Blue"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "does not exist"),
        ([{"product_id": None, "title": None, "color": None, "at": None, "off": None}] * 5, "product_id: expected"),
        ([{"product_id": "1", "color": "Red", "at": None, "off": None}], "'title'.*does not exist"),
        ([_good(1, title={"en": "a"})], "type struct"),
    ],
)
def test_nothing_is_written_from_a_source_that_violates_its_contract(
    lines: list[Any], complaint: str, shop: FeedShop
) -> None:
    with pytest.raises(DataContractError, match=complaint):
        shop.run(lines)
    assert shop.versions() == NOTHING_WRITTEN
    [row] = shop.rows("runs")
    assert (row["kind"], row["status"], row["attempt"]) == ("import", "failed", 1)


def test_a_missing_source_leaves_a_row_and_the_next_import_takes_no_notice_of_it(shop: FeedShop) -> None:
    with pytest.raises(DataContractError, match="nosuch"):
        shop.run([], path="nosuch.jsonl")
    assert shop.run([_good(n) for n in range(20)])["status"] == "succeeded"
    found = [(row["kind"], row["status"], row["run_id"][:7]) for row in shop.rows("runs")]
    assert sorted(found) == [("import", "failed", "import-"), ("import", "succeeded", "import-")]
    assert shop.run([_good(n) for n in range(20)])["status"] == "nothing_to_do"


def test_an_attribute_that_is_not_in_the_dictionary_is_refused_before_anything_is_read(shop: FeedShop) -> None:
    with pytest.raises(ConfigError, match="not in the attribute dictionary"):
        shop.run([_good(1)], mapping={"attributes": {"size": "size"}})


# --- killed runs ------------------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_before_each_write_ends_like_an_undisturbed_run_i5(shop: FeedShop) -> None:
    lines = [*[_good(n) for n in range(20)], BAD]
    for owner, write in ((Catalog, "replace_products"), (Catalog, "refresh_current_values"), (runs, "write")):
        with killed_at(owner, write):
            shop.run(lines)
    summary = shop.run(lines)
    assert (summary["status"], summary["new"], summary["quarantined"]) == ("succeeded", 20, {"empty_title": 1})
    assert _adds_up(summary)
    rows = {table: len(shop.rows(table)) for table in ("products", "quarantine", "current_values", "runs")}
    assert rows == {"products": 20, "quarantine": 1, "current_values": 20, "runs": 1}


@pytest.mark.slow
def test_files_are_read_again_after_an_import_was_killed(shop: FeedShop) -> None:
    """The killed import changed the products, has no row in `runs`, and its files are replaced by those before."""
    feed = shop.folder / "feed.jsonl"
    shop.run([_good(1, title="first")])
    before, status = feed.read_text(), feed.stat()
    with killed_at(runs, "write"):
        shop.run([_good(1, title="second")])
    assert shop.products()["p1"]["title"] == "second"
    feed.write_text(before)
    os.utime(feed, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert shop.run([_good(1, title="first")])["changed"] == 1
    assert shop.products()["p1"]["title"] == "first"


@pytest.mark.slow
def test_readers_see_an_import_whose_checkpoints_are_lost_after_it_was_killed(shop: FeedShop) -> None:
    """Compared with the products that it has changed itself, nothing has changed."""
    shop.run([_good(0), _good(1)])
    feed = [_good(0, color="red", at="2026-02-01"), _good(1, off=True, at="2026-02-01")]
    with killed_at(Catalog, "refresh_current_values"):
        shop.run(feed)
    shutil.rmtree(shop.folder / "catalog" / "_staging")
    assert shop.run(feed)["status"] == "succeeded"
    seen = {row["product_id"]: row["values"] for row in shop.rows("current_values")}
    assert seen == {"p0": ["Red"], "p1": ["Grey"]}
    assert not shop.catalog.current_values_stale()


@pytest.mark.slow
def test_an_import_is_not_resumed_after_another_import_changed_the_products(shop: FeedShop) -> None:
    """What it had found out about the rows was about other products. The files come back with their old times."""
    shop.run([_good(0)])
    first = [_good(0), _good(1, title="first")]
    with killed_at(Catalog, "replace_products"):
        shop.run(first)
    at = (shop.folder / "feed.jsonl").stat().st_mtime_ns
    with killed_at(Catalog, "refresh_current_values"):
        shop.run([_good(0, title="second"), _good(1, title="second")])
    (shop.folder / "feed.jsonl").write_text("\n".join(json.dumps(line) for line in first))
    os.utime(shop.folder / "feed.jsonl", ns=(at, at))
    assert shop.run(first)["changed"] == 2
    assert {name: row["title"] for name, row in shop.products().items()} == {"p0": "shirt 0", "p1": "first"}


@pytest.mark.slow
def test_rows_that_a_killed_run_left_in_quarantine_are_quarantined_again(shop: FeedShop) -> None:
    good = [_good(n) for n in range(20)]
    shop.run(good)
    with killed_at(runs, "write"):
        shop.run([*good, BAD])
    assert len(shop.rows("quarantine")) == 1
    summary = shop.run([*good, BAD])
    assert (summary["status"], summary["quarantined"]) == ("succeeded", {"empty_title": 1})
    assert shop.run([*good, BAD])["status"] == "nothing_to_do"


# --- pictures ---------------------------------------------------------------------------------------------------------


WITH_PICTURES: Row = {"image_folder": "pictures", "mapping": {"image_uris": "picture"}}


def test_an_import_whose_pictures_are_all_missing_is_refused_and_tried_anew_when_they_are_there(
    shop: FeedShop,
) -> None:
    (shop.folder / "pictures").mkdir()
    feed = [_good(n, picture=f"{n}.jpg") for n in range(30)]
    complaint = r"30 of 30 .* most often image_missing \(30\), for example pictures/\d+.jpg"
    with pytest.raises(GateRefused, match=complaint):
        shop.run(feed, **WITH_PICTURES)
    assert shop.versions() == NOTHING_WRITTEN
    [refused] = shop.rows("runs")
    assert (refused["status"], dict(refused["counts"])["unusable_pictures.image_missing"]) == ("refused", 30)
    assert not list((shop.folder / "catalog").glob("_staging/*"))
    for number in range(10):
        (shop.folder / "pictures" / f"{number}.jpg").write_bytes(PICTURE)
    summary = shop.run(feed, **WITH_PICTURES)  # the feed did not change: the same run, with other versions
    assert (summary["run_id"], summary["new"]) == (refused["run_id"], 30)
    assert (summary["pictures_tried"], summary["unusable_pictures"]) == (30, {"image_missing": 20})
    assert [row["images"][0]["version"] == "missing" for row in shop.products().values()].count(True) == 20
    assert [line for line in shop.said if "20 of 30 products with pictures have no usable picture" in line]


@pytest.mark.slow
def test_an_import_that_was_killed_after_its_products_were_seen_counts_pictures_and_is_not_refused(
    shop: FeedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.folder / "pictures").mkdir()
    (shop.folder / "pictures" / "0.jpg").write_bytes(PICTURE)
    feed = [_good(n, picture=f"{n}.jpg") for n in range(30)]
    with pytest.raises(GateRefused):
        shop.run(feed, **WITH_PICTURES)
    with monkeypatch.context() as patch, killed_at(Catalog, "refresh_current_values"):
        patch.setattr(job, "refuse_unusable_pictures", lambda *_: None)
        shop.run(feed, **WITH_PICTURES)
    summary = shop.run(feed, **WITH_PICTURES)
    assert (summary["status"], summary["new"]) == ("succeeded", 30)
    assert (summary["pictures_tried"], summary["unusable_pictures"]) == (30, {"image_missing": 29})


def stale(versions: Callable[..., pd.Series]) -> Callable[..., pd.Series]:
    """``versions`` while no file's status can be read; pickled by value, for Spark's workers."""

    def broken(path: Any, **_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", path)

    def versions_while_stale(*arguments: Any) -> pd.Series:
        lstat, os.lstat = os.lstat, broken  # type: ignore[assignment]
        try:
            return versions(*arguments)
        finally:
            os.lstat = lstat

    return versions_while_stale


@pytest.mark.parametrize("changed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_import_while_the_pictures_folder_does_not_answer_ends_and_changes_nothing(
    shop: FeedShop, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.folder / "1.jpg").write_bytes(PICTURE)
    mapping = {"image_uris": "picture"}
    shop.run([_good(1, picture="1.jpg")], mapping=mapping)
    feed = [_good(1, picture="1.jpg", title="other" if changed else "shirt 1")]
    before = shop.versions()
    with monkeypatch.context() as patch:
        patch.setattr(product_pictures, "uri_versions", stale(product_pictures.uri_versions))
        with pytest.raises(Exception, match=r"Stale file handle|cannot be told") as failed:
            shop.run(feed, mapping=mapping)
    found = failures.recognised(failed.value)
    assert type(found) is TemporaryFailure
    assert "whether the picture" in str(found)
    assert shop.versions() == before
    assert shop.run(feed, mapping=mapping)["status"] == ("succeeded" if changed else "nothing_to_do")


@pytest.mark.slow
def test_each_picture_that_is_sent_is_kept_once_whatever_is_imported(spark: Any, tmp_path: Path) -> None:
    shop = Shop(spark, tmp_path, {"format": "parquet", "path": "feed.parquet", "mapping": {"image_bytes": "picture"}})
    store, blue = StoredPictures(tmp_path / "catalog" / "pictures"), jpeg((0, 0, 200))
    red_version, blue_version = (hashlib.sha256(data).hexdigest() for data in (PICTURE, blue))

    def run(title: str, **pictures: bytes | None) -> Row:
        rows = [{"product_id": name, "title": title, "picture": data} for name, data in pictures.items()]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "feed.parquet")
        return shop.imported()

    def kept() -> dict[str, int]:
        """Version -> i-node of its file."""
        return {file.name: store.path(file.name).stat().st_ino for file in store.files()}

    summary = run("t", a=PICTURE, b=PICTURE, c=None, d=blue)
    assert (summary["new"], summary["pictures_tried"], summary["unusable_pictures"]) == (4, 3, {})
    before = kept()
    assert set(before) == {red_version, blue_version}
    red = [{"bytes": None, "uri": None, "version": red_version}]
    images = {name: row["images"] for name, row in shop.products().items()}
    assert images == {"a": red, "b": red, "c": [], "d": [red[0] | {"version": blue_version}]}

    assert run("other", a=PICTURE, b=blue, c=None, d=blue)["changed"] == 4
    assert kept() == before  # the same files, not written again
    assert shop.products()["b"]["images"] == images["d"]


# --- values that repeat what was written or suggested -----------------------------------------------------------------


AT = datetime(2026, 2, 1, tzinfo=UTC)


def _asserted(product_id: str, value: str, run: str = "enrich-1", source: str = "model") -> Row:
    ids = {"event_id": f"{run}/{product_id}", "product_id": product_id, "run_id": run}
    at = AT + timedelta(hours=int(run.removeprefix("enrich-")))
    return ids | {"op": "assert", "attribute": "color", "value": value, "source": source, "asserted_at": at}


def _write_and_suggest(catalog: Catalog) -> None:
    """Store what two runs wrote, and what they and a killed run suggested."""
    written = [_asserted("p1", "Red", "enrich-2"), _asserted("p1", "Red"), _asserted("p2", "Red")]
    retract = {"op": "retract", "event_id": "back", "refers_to": "enrich-1/p1", "run_id": "rollback-1"}
    events = [*written, _asserted("p5", "Red", source="human"), _asserted("p1", "Red") | retract]
    catalog.append_rows("attribute_values", events, "written")
    suggested = [
        prediction("p0", "color", "Grey", decision="suggest", run_id="enrich-1"),
        prediction("p3", "color", "Blue", decision="suggest", run_id="enrich-1"),
        prediction("p4", "color", "Blue", decision="suggest", run_id="killed"),
        prediction("p6", "color", "Blue", decision="abstain", run_id="enrich-1"),
    ]
    catalog.append_rows("predictions", suggested, "suggested")
    catalog.append_rows("runs", [run_row("enrich-1", attempt=1, finished_at=AT)], "suggested")


@pytest.mark.slow
def test_new_merchant_values_that_repeat_what_was_written_or_suggested_are_marked(shop: FeedShop) -> None:
    """PRECISION, certificate 7; also where the import was killed after it had replaced the products."""
    first = shop.run([_good(0), *[_good(n, color=None) for n in range(1, 7)]])
    assert first["self_derived"] == {}
    _write_and_suggest(shop.catalog)
    colors = {0: "gray", 1: "RED", 2: "Blue", 3: "blue", 4: "Blue", 5: "Red", 6: "Blue"}
    feed = [_good(n, color=color, title="other", at="2026-03-01") for n, color in colors.items()]
    with killed_at(Catalog, "refresh_current_values"):
        shop.run(feed)
    second = shop.run(feed)
    assert (second["changed"], second["self_derived"]) == (7, {"color": 2})
    marked = [(row["product_id"], row["attribute"], row["value"], row["run_id"]) for row in shop.rows("self_derived")]
    assert sorted(marked) == [("p1", "color", "Red", "enrich-1"), ("p3", "color", "Blue", "enrich-1")]
    [recorded] = [row for row in shop.rows("runs") if row["run_id"] == second["run_id"]]
    assert dict(recorded["counts"])["self_derived.color"] == 2

    again = shop.run([_good(1, color=None, title="other", at="2026-04-01")], min_volume_ratio=0.0)
    given_back = shop.run([_good(1, color="red", title="other", at="2026-05-01")], min_volume_ratio=0.0)
    assert (again["self_derived"], given_back["self_derived"]) == ({}, {})
    assert len(shop.rows("self_derived")) == 2
