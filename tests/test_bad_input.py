"""One corpus of bad and unusual rows and pictures, imported and enriched: no row is lost, none fails the batch (I7)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from catalog_enrichment.demo import pictures
from catalog_enrichment.enrichment import pipeline
from catalog_enrichment.enrichment.request import Window

from . import sample_catalog
from .sample_catalog import SampleCatalog, listing, table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GREY = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format=kind, **options)
    return sink.getvalue()


def frames(kind: str) -> bytes:
    red, blue = (Image.new("RGB", (40, 40), color) for color in ("red", "blue"))
    return encoded(red, kind, save_all=True, append_images=[blue], duration=50)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (60, 30), "green"), "JPEG", exif=exif)


USABLE: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: encoded(Image.new("CMYK", (40, 40), (0, 200, 200, 10)), "JPEG"),
    "deep.png": lambda: encoded(Image.fromarray(GREY), "PNG"),
    "palette.png": lambda: encoded(Image.new("RGBA", (40, 40), (9, 99, 9, 99)).quantize(8), "PNG", transparency=0),
    "animated.gif": lambda: frames("GIF"),
    "animated.webp": lambda: frames("WEBP"),
    "rotated.jpg": rotated,
}
UNUSABLE: dict[str, tuple[Callable[[], bytes] | None, str]] = {
    "truncated.jpg": (lambda: sample_catalog.jpeg((200, 30, 30), size=200)[:700], "image_truncated"),
    "empty.jpg": (lambda: b"", "image_empty"),
    "text.jpg": (lambda: b"this is not a picture at all", "image_not_an_image"),
    "bomb.png": (pictures.bomb, "image_too_large"),
    "missing.jpg": (None, "image_missing"),
}
GOOD_TITLES = {
    "emoji": "Shirt \N{T-SHIRT}\N{ZERO WIDTH JOINER}\N{SPARKLES} red",
    "rtl": "قميص أحمر",
    "nul": "Red\x00 shirt",
}
BAD_ROWS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "null title": ({"title": None}, "empty_title"),
    "empty title": ({"title": ""}, "empty_title"),
    "blank title": ({"title": " \u00a0\t"}, "empty_title"),
    "title of a megabyte": ({"title": "red " * 250_000}, "text_too_long"),
    "title is a list": ({"title": ["red", "shirt"]}, "unparseable_row"),
    "null id": ({"product_id": None}, "missing_id"),
    "blank id": ({"product_id": " "}, "missing_id"),
    "cut line": ('{{"product_id": "cut", "description": "row of {name}", "title": "red sh', "unparseable_row"),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> SampleCatalog:
    """The corpus, imported and enriched once; every test checks another part of the result."""
    sample = sample_catalog.build(tmp_path_factory.mktemp("bad") / "sample", spark)
    for name, make in USABLE.items() | {(name, make) for name, (make, _) in UNUSABLE.items()}:
        if make is not None:
            (sample.folder / "feed" / name).write_bytes(make())
    rows: list[dict[str, Any] | str] = [listing(number) for number in range(60)]
    rows += [listing(0, product_id=name, image=name) for name in (*USABLE, *UNUSABLE)]
    rows += [listing(0, product_id="no picture", image=None), listing(0, product_id="null text", description=None)]
    rows += [listing(0, product_id=name, title=title) for name, title in GOOD_TITLES.items()]
    rows += [listing(0, product_id="long description", description="red " * 30_000)]
    for name, (row, _) in BAD_ROWS.items():
        marked = listing(0, product_id=name, description=f"row of {name}")
        rows.append(row.format(name=name) if isinstance(row, str) else marked | row)
    rows += [json.dumps(listing(0, product_id="surrogate")).replace("Shirt", "Shirt \\ud800")]
    rows += [listing(1, updated_at="2026-11-01T00:00:00+00:00"), listing(2)]  # ids that the feed has already
    sample.feed(rows)
    sample.import_products()
    sample_catalog.register(sample, tmp_path_factory.mktemp("artifacts"))
    sample.promotion.promote("1", expected_current=None)
    pipeline.enrich(sample.context(), sample.model(), Window())
    return sample


def modality_paths(sample: SampleCatalog) -> dict[str, tuple[str, str | None]]:
    """Product -> (modality path, why no picture was used)."""
    return {row["product_id"]: (row["modality"], row["image_reason"]) for row in table(sample, "predictions")}


@pytest.mark.parametrize("name", USABLE)
def test_unusual_pictures_are_used(sample: SampleCatalog, name: str) -> None:
    assert modality_paths(sample)[name] == ("both", None)


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in UNUSABLE.items()])
def test_a_product_with_a_bad_picture_is_scored_on_text_only(sample: SampleCatalog, name: str, reason: str) -> None:
    assert modality_paths(sample)[name] == ("text_only", reason)


@pytest.mark.parametrize("name", [*GOOD_TITLES, "surrogate", "null text", "long description"])
def test_unusual_text_is_scored(sample: SampleCatalog, name: str) -> None:
    assert modality_paths(sample)[name] == ("both", None)


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in BAD_ROWS.items()])
def test_a_bad_row_goes_to_quarantine_with_its_reason(sample: SampleCatalog, name: str, reason: str) -> None:
    mark = f"row of {name}"
    rows = [row for row in table(sample, "quarantine") if row["product_id"] == name or mark in (row["payload"] or "")]
    assert [row["reason"] for row in rows] == [reason]
    assert name not in modality_paths(sample)


def test_of_rows_with_one_id_the_newest_is_the_product(sample: SampleCatalog) -> None:
    older = [row for row in table(sample, "quarantine") if row["reason"] == "duplicate_id"]
    assert sorted(row["product_id"] for row in older) == ["p001", "p002"]
    (product,) = (row for row in table(sample, "products") if row["product_id"] == "p001")
    assert product["updated_at"].month == 11


def test_i7_counts_add_up(sample: SampleCatalog) -> None:
    lines = (sample.folder / "feed" / "products.jsonl").read_text().count("\n")
    imported, enriched = sorted(table(sample, "runs"), key=lambda run: run["finished_at"])
    quarantined = len(table(sample, "quarantine"))
    counts = dict(imported["counts"])
    assert counts["rows"] == lines == counts["products"] + quarantined
    counts = dict(enriched["counts"])
    assert counts["products"] == counts["predicted"] + sum(
        n for name, n in counts.items() if name.startswith("skipped")
    )
    assert counts["predicted"] == len(modality_paths(sample)) == len(table(sample, "products"))
