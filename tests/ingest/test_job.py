"""The import job on a real lake: bad input, changed and unchanged products, killed runs (I1, I5, I7)."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import dictionary, resources
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused
from catalog_enrichment.ingest import feeds, picture_sample
from catalog_enrichment.ingest.job import import_products

from ..catalog.catalog_rows import prediction, run_row
from ..clock import set_back
from ..sample_catalog import jpeg

Row = dict[str, Any]
PICTURE = jpeg((200, 30, 30))


class Shop:
    """A merchants' feed and the catalog that it is imported into."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark, self.folder = spark, folder
        self.catalog = LakeCatalog(folder / "catalog", spark)

    def run(self, lines: list[Row | str], **source: Any) -> Row:
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        feed = self.folder / "feed.jsonl"
        if not feed.exists() or feed.read_text(encoding="utf-8") != "\n".join(
            text
        ):  # its modification time is in the fingerprint
            feed.write_text("\n".join(text), encoding="utf-8")
        mapping = {"attributes": {"color": "color"}, "updated_at": "at", "opt_out": "off"} | source.pop("mapping", {})
        content = {
            "catalog": {"path": "catalog", "dictionary": "schemas:attributes/fashion.v1.json"},
            "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
            "root": str(self.folder),
            "source": {"format": "jsonl", "path": "feed.jsonl", "mapping": mapping} | source,
        }
        config = strict.build(Config, content, where="test")
        attributes = dictionary.load(resources.locate("schemas:attributes/fashion.v1.json"))
        self.said: list[str] = []
        return import_products(Context(config, self.spark, self.catalog, attributes, say=self.said.append))

    def products(self) -> dict[str, Any]:
        return {row.product_id: row for row in self.catalog.read("products").collect()}

    def versions(self) -> dict[str, int]:
        return {t: self.catalog.version(t) for t in ("products", "quarantine", "runs", "current_values")}


@pytest.fixture
def shop(spark: Any, tmp_path: Path) -> Shop:
    return Shop(spark, tmp_path)


def _good(number: int, **other: Any) -> Row:
    row = {"product_id": f"p{number}", "title": f"shirt {number}", "color": "gray", "at": "2026-01-01", "off": False}
    return row | other


def _adds_up(summary: Row) -> bool:
    """products = new + changed + unchanged + quarantined (I7)."""
    parts = [summary["new"], summary["changed"], summary["unchanged"], *summary["quarantined"].values()]
    return bool(summary["products"] == sum(parts))


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


def test_bad_rows_are_quarantined_the_rest_is_imported_and_a_second_run_changes_nothing_i1_i5_i7(shop: Shop) -> None:
    with_description = {"description": "description"}
    summary = shop.run(CORPUS, mapping=with_description)
    assert summary["status"] == "succeeded"
    assert summary["products"] == len(CORPUS)
    assert _adds_up(summary)
    assert summary["quarantined"] == {
        **{"unparseable_row": 3, "missing_id": 1, "empty_title": 2, "text_too_long": 1, "duplicate_id": 2}
    }
    products = shop.products()
    assert len(products) == summary["new"] == 154
    assert products["p3"].title == "newer"
    assert products["nul"].title == "a\0b"
    assert products["emoji"].title == "👗 dress"
    # I1: the canonical value, or as it was if the dictionary has none
    assert products["p0"].merchant_attributes == {"color": ["Grey"]}
    assert products["emoji"].merchant_attributes == {"color": ["see picture"]}
    assert summary["merchant_values"] == {"color": {"mapped": 151, "unmapped": 1}}
    values = shop.catalog.read("current_values").where("product_id = 'emoji'").collect()
    assert [(v.attribute, v.values, v.source) for v in values] == [("color", ["see picture"], "merchant")]
    quarantined = shop.catalog.read("quarantine").collect()
    assert len(quarantined) == 9
    assert {row.stage for row in quarantined} == {"import"}
    assert {row.run_id for row in quarantined} == {summary["run_id"]}
    assert max(len(row.payload) for row in quarantined) == 2000
    run = shop.catalog.read("runs").first()
    assert run.counts["rows"] == len(CORPUS)
    assert json.loads(run.validation)["success"]
    attributes = json.loads(run.attributes)
    assert [(value, number) for value, _, number in attributes["unmapped_value"]["color"]] == [("see picture", 1)]
    assert attributes["shops"]["shops"] == {"default": summary["quarantined"] | {"unmapped_value.color": 1}}
    # readers without Spark can decode every string
    assert sum(batch.num_rows for batch in shop.catalog.scan("products") if batch.to_pylist()) == 154

    before = shop.versions()
    again = shop.run(CORPUS, mapping=with_description)
    assert (again["status"], again["run_id"], again["new"], again["changed"]) == ("nothing_to_do", None, 0, 0)
    assert again["unchanged"] == 154
    assert _adds_up(again)
    assert shop.versions() == before
    assert not list((shop.folder / "catalog").glob("_staging/*"))


def test_a_row_replaces_its_product_and_absent_products_stay(shop: Shop) -> None:
    undated = {"updated_at": ""}
    shop.run([_good(n) for n in range(4)], mapping=undated)
    before = shop.products()
    changed = [_good(0), _good(1, color="Red"), _good(2, title="other"), _good(9)]
    summary = shop.run(changed, mapping=undated)
    after = shop.products()
    assert (summary["new"], summary["changed"], summary["unchanged"]) == (1, 2, 1)
    assert set(after) == {"p0", "p1", "p2", "p3", "p9"}
    assert after["p0"] == before["p0"]
    assert after["p3"] == before["p3"]
    assert after["p1"].merchant_attributes == {"color": ["Red"]}
    assert after["p1"].content_hash == before["p1"].content_hash
    assert after["p1"].updated_at > before["p1"].updated_at
    assert after["p2"].content_hash != before["p2"].content_hash
    # the first snapshot again: a new run, with another id
    shop.run([_good(n) for n in range(4)], mapping=undated)
    assert shop.products()["p1"].merchant_attributes == {"color": ["Grey"]}
    assert shop.catalog.read("runs").count() == 3


@pytest.mark.slow
def test_imports_have_an_order_where_the_clock_is_set_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """X, Y, X, Y, the files with the times they had before: the second Y is another run than the first."""
    ids = []
    for step, title in enumerate(("X", "Y", "X", "Y")):
        set_back(monkeypatch, step)
        (shop.folder / "feed.jsonl").write_text(json.dumps(_good(1, title=title)))
        os.utime(shop.folder / "feed.jsonl", ns=(0, ord(title) * 10**9))
        ids.append(shop.run([_good(1, title=title)])["run_id"])
        assert shop.products()["p1"].title == title
    assert len(set(ids)) == 4


@pytest.mark.slow
def test_files_that_were_imported_before_are_not_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = shop.folder / "1.jpg"
    picture.write_bytes(PICTURE)
    lines: list[Row | str] = [_good(1, image="1.jpg"), *[_good(n) for n in range(2, 21)], _good(0, title=None)]
    mapping = {"image_uris": "image"}
    first = shop.run(lines, mapping=dict(mapping))
    reads: list[int] = []
    read_source = feeds.read_source

    def read(*arguments: Any) -> Any:
        reads.append(1)
        return read_source(*arguments)

    monkeypatch.setattr(feeds, "read_source", read)
    again = shop.run(lines, mapping=dict(mapping))
    assert (reads, again["status"], again["run_id"]) == ([], "nothing_to_do", None)
    expected = first | {"status": "nothing_to_do", "run_id": None, "new": 0, "unchanged": 20, "pictures_tried": 0}
    assert {name: again[name] for name in again if name != "seconds"} == {
        name: expected[name] for name in expected if name != "seconds"
    }

    os.utime(picture, (1, 1))  # the feed names the same file, which is another picture now
    assert shop.run(lines, mapping=dict(mapping))["changed"] == 1
    assert shop.run(lines, mapping=mapping | {"default_shop": "other"})["changed"] == 20
    assert len(reads) == 2


@pytest.mark.slow
def test_files_are_read_again_after_an_import_was_killed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The killed one changed the products, has no row in `runs`, and its files are replaced by those before."""
    feed = shop.folder / "feed.jsonl"
    shop.run([_good(1, title="first")])
    before, status = feed.read_text(), feed.stat()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            shop.run([_good(1, title="second")])
    assert shop.products()["p1"].title == "second"
    feed.write_text(before)
    os.utime(feed, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert shop.run([_good(1, title="first")])["changed"] == 1
    assert shop.products()["p1"].title == "first"


def test_a_run_that_was_killed_before_each_write_ends_like_an_undisturbed_one_i5(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[Row | str] = [*[_good(n) for n in range(20)], _good(0, title=None, product_id="bad")]
    for write in ("replace_products", "refresh_current_values", "append_rows"):
        _killed_at(shop, monkeypatch, write, lines)
    summary = shop.run(lines)
    assert (summary["status"], summary["new"], summary["quarantined"]) == ("succeeded", 20, {"empty_title": 1})
    assert _adds_up(summary)
    assert len(shop.products()) == 20
    assert shop.catalog.read("quarantine").count() == 1
    assert shop.catalog.read("current_values").count() == 20
    assert shop.catalog.read("runs").count() == 1


@pytest.mark.slow
def test_readers_see_an_import_whose_checkpoints_are_lost_after_it_was_killed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the products that it has changed itself, nothing has changed."""
    shop.run([_good(0), _good(1)])
    feed: list[Row | str] = [_good(0, color="red", at="2026-02-01"), _good(1, off=True, at="2026-02-01")]
    _killed_at(shop, monkeypatch, "refresh_current_values", feed)
    shutil.rmtree(shop.folder / "catalog" / "_staging")
    assert shop.run(feed)["status"] == "succeeded"
    seen = {row.product_id: row["values"] for row in shop.catalog.read("current_values").collect()}
    assert seen == {"p0": ["Red"], "p1": ["Grey"]}
    assert not shop.catalog.current_values_stale()


@pytest.mark.slow
def test_an_import_is_not_resumed_after_another_one_changed_the_products(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had found out about the rows was about other products. The files come back with their old times."""
    shop.run([_good(0)])
    first: list[Row | str] = [_good(0), _good(1, title="first")]
    _killed_at(shop, monkeypatch, "replace_products", first)
    at = (shop.folder / "feed.jsonl").stat().st_mtime_ns
    _killed_at(shop, monkeypatch, "refresh_current_values", [_good(0, title="second"), _good(1, title="second")])
    (shop.folder / "feed.jsonl").write_text("\n".join(json.dumps(line) for line in first))
    os.utime(shop.folder / "feed.jsonl", ns=(at, at))
    assert shop.run(first)["changed"] == 2
    found = [(row.product_id, row.title) for row in shop.catalog.read("products").collect()]
    assert sorted(found) == [("p0", "shirt 0"), ("p1", "first")]


def _killed_at(shop: Shop, monkeypatch: pytest.MonkeyPatch, method: str, lines: list[Row | str], **source: Any) -> None:
    """Import ``lines`` and be killed when this method of the catalog is called."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog, method, killed)
        with pytest.raises(KeyboardInterrupt):
            shop.run(lines, **source)


@pytest.mark.slow
def test_rows_that_a_killed_run_left_in_quarantine_are_quarantined_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [_good(n) for n in range(20)]
    shop.run([*good])
    _killed_at(shop, monkeypatch, "append_rows", [*good, _good(0, title=None, product_id="bad")])
    assert shop.catalog.read("quarantine").count() == 1
    summary = shop.run([*good, _good(0, title=None, product_id="bad")])
    assert (summary["status"], summary["quarantined"]) == ("succeeded", {"empty_title": 1})
    assert shop.run([*good, _good(0, title=None, product_id="bad")])["status"] == "nothing_to_do"


def test_a_snapshot_with_a_tenth_of_the_last_rows_is_refused_and_nothing_is_written(shop: Shop) -> None:
    shop.run([_good(n) for n in range(100)])
    before = shop.versions()
    with pytest.raises(DataContractError, match=r"nothing was written:\n.*expected at least 50 rows.*observed 10"):
        shop.run([_good(n) for n in range(10)])
    assert shop.versions() | {"runs": 0} == before | {"runs": 0}
    assert [(row.status, row.attempt) for row in runs.every_attempt(shop.catalog).collect()].count(("failed", 1)) == 1
    assert shop.run([_good(n) for n in range(60)])["status"] == "nothing_to_do"


def test_an_import_whose_pictures_are_all_missing_is_refused_and_tried_anew_when_they_are_there(shop: Shop) -> None:
    (shop.folder / "pictures").mkdir()
    feed = [_good(n, picture=f"{n}.jpg") for n in range(30)]
    source = {"image_folder": "pictures", "mapping": {"image_uris": "picture"}}
    with pytest.raises(
        GateRefused, match=r"30 of 30 .* most often image_missing \(30\), for example .*/pictures/\d+.jpg"
    ):
        shop.run([*feed], **source)
    assert {name: shop.versions()[name] for name in ("products", "quarantine", "current_values")} == {
        "products": -1, "quarantine": -1, "current_values": -1,
    }  # fmt: skip
    [refused] = runs.every_attempt(shop.catalog).collect()
    assert (refused.status, refused.counts["unusable_pictures.image_missing"]) == ("refused", 30)
    assert not list((shop.folder / "catalog").glob("_staging/*"))
    for number in range(10):
        (shop.folder / "pictures" / f"{number}.jpg").write_bytes(PICTURE)
    summary = shop.run([*feed], **source)  # the feed did not change: the same run, with other versions
    assert (summary["run_id"], summary["new"]) == (refused.run_id, 30)
    assert (summary["pictures_tried"], summary["unusable_pictures"]) == (30, {"image_missing": 20})
    assert [product.images[0].version == "missing" for product in shop.products().values()].count(True) == 20
    assert [line for line in shop.said if "20 of 30 products with pictures have no usable one" in line]


@pytest.mark.slow
def test_an_import_that_was_killed_after_its_products_were_seen_counts_pictures_and_is_not_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.folder / "pictures").mkdir()
    (shop.folder / "pictures" / "0.jpg").write_bytes(PICTURE)
    feed: list[Row | str] = [_good(n, picture=f"{n}.jpg") for n in range(30)]
    source = {"image_folder": "pictures", "mapping": {"image_uris": "picture"}}
    with pytest.raises(GateRefused):
        shop.run(feed, **source)
    monkeypatch.setattr(picture_sample, "refuse_too_many", lambda *_: None)
    _killed_at(shop, monkeypatch, "refresh_current_values", feed, **source)
    monkeypatch.undo()  # from here on a refusal would be one
    summary = shop.run(feed, **source)
    assert (summary["status"], summary["new"]) == ("succeeded", 30)
    assert (summary["pictures_tried"], summary["unusable_pictures"]) == (30, {"image_missing": 29})


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
    lines: list[Any], complaint: str, shop: Shop
) -> None:
    with pytest.raises(DataContractError, match=complaint) as caught:
        shop.run(lines)
    assert caught.value.exit_code == 2
    assert {table: shop.catalog.version(table) for table in ("products", "quarantine", "current_values")} == {
        "products": -1, "quarantine": -1, "current_values": -1,
    }  # fmt: skip
    [row] = runs.every_attempt(shop.catalog).collect()
    assert (row.kind, row.status, row.attempt) == ("import", "failed", 1)


def test_a_missing_source_leaves_a_row_and_the_next_import_takes_no_notice_of_it(shop: Shop) -> None:
    with pytest.raises(DataContractError, match="nosuch"):
        shop.run([], path="nosuch.jsonl")
    assert shop.run([_good(n) for n in range(20)])["status"] == "succeeded"
    found = [(row.kind, row.status, row.run_id[:7]) for row in runs.every_attempt(shop.catalog).collect()]
    assert sorted(found) == [("import", "failed", "import-"), ("import", "succeeded", "import-")]
    assert shop.run([_good(n) for n in range(20)])["status"] == "nothing_to_do"


def test_an_attribute_that_is_not_in_the_dictionary_is_refused_before_anything_is_read(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="not in the attribute dictionary"):
        shop.run([_good(1)], mapping={"attributes": {"size": "size"}})


AT = datetime(2026, 2, 1, tzinfo=UTC)


def _asserted(product_id: str, value: str, run: str = "enrich-1", source: str = "model") -> Row:
    ids = {"event_id": f"{run}/{product_id}", "product_id": product_id, "run_id": run}
    at = AT + timedelta(hours=int(run.removeprefix("enrich-")))
    return ids | {"op": "assert", "attribute": "color", "value": value, "source": source, "asserted_at": at}


def _write_and_suggest(catalog: LakeCatalog) -> None:
    """What two runs wrote, and what they and a killed one suggested."""
    written = [
        _asserted("p1", "Red", "enrich-2"),
        _asserted("p1", "Red"),
        _asserted("p2", "Red"),
    ]
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
def test_new_merchant_values_that_repeat_what_was_written_or_suggested_are_marked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PRECISION, certificate 7; also where the import was killed after it had replaced the products."""
    first = shop.run([_good(0), *[_good(n, color=None) for n in range(1, 7)]])
    assert first["self_derived"] == {}
    _write_and_suggest(shop.catalog)
    colors = {0: "gray", 1: "RED", 2: "Blue", 3: "blue", 4: "Blue", 5: "Red", 6: "Blue"}
    feed: list[Row | str] = [_good(n, color=color, title="other", at="2026-03-01") for n, color in colors.items()]

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shop.catalog, "refresh_current_values", killed)
        with pytest.raises(KeyboardInterrupt):
            shop.run(feed)
    second = shop.run(feed)

    assert (second["changed"], second["self_derived"]) == (7, {"color": 2})
    marked = shop.catalog.read("self_derived").collect()
    assert {(row.product_id, row.attribute, row.value, row.run_id) for row in marked} == {
        ("p1", "color", "Red", "enrich-1"),
        ("p3", "color", "Blue", "enrich-1"),
    }
    assert len(marked) == 2
    [recorded] = [row for row in shop.catalog.read("runs").collect() if row.run_id == second["run_id"]]
    assert recorded.counts["self_derived.color"] == 2

    # a catalog of a release without the table: p5's value was written for it, and no merchant value was marked
    earlier = {"run_id": "enrich-3", "event_id": "enrich-3/p5"}
    shop.catalog.append_rows("attribute_values", [_asserted("p5", "Red", "enrich-3") | earlier], "enrich-3")
    shutil.rmtree(shop.folder / "catalog" / "self_derived")
    os.utime(shop.folder / "feed.jsonl", (1, 1))
    migrated = shop.run(feed)
    assert (migrated["status"], migrated["changed"], migrated["self_derived"]) == ("succeeded", 0, {"color": 2})
    assert {row.product_id for row in shop.catalog.read("self_derived").collect()} == {"p1", "p5"}
    assert shop.run(feed)["status"] == "nothing_to_do"

    again = shop.run([_good(1, color=None, title="other", at="2026-04-01")], min_volume_ratio=0)
    given_back = shop.run([_good(1, color="red", title="other", at="2026-05-01")], min_volume_ratio=0)
    assert (again["self_derived"], given_back["self_derived"]) == ({}, {})
    assert shop.catalog.read("self_derived").count() == 2
