"""Scaled copies: a picture is fetched once, and a copy is never wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog_enrichment.config.images import FetchConfig, StoredImagesConfig
from catalog_enrichment.inputs.images import decode_image, first_usable, first_usable_of_each
from catalog_enrichment.inputs.picture_sources import MISSING, picture_sources
from catalog_enrichment.inputs.scaled_copies import Copy, ScaledCopies, copies_of, scaled_copies
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.reasons import Reason

from .picture_server import PictureServer, answer

SQUARE = Square(224)
EXIF_ORIENTATION = 0x0112


def photograph(width: int, height: int, kind: str = "JPEG", turned: int = 1, mode: str = "RGB") -> bytes:
    """A smooth picture with an edge and a little noise, so that JPEG has something to lose."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(width).normal(0, 4, (height, width))
    red = 128 + 90 * np.sin(columns / width * 9) + noise
    green = 128 + 90 * np.cos(rows / height * 7) + noise
    blue = np.where(columns > rows, 200, 60) + noise
    pixels = np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)
    image, sink, exif = Image.fromarray(pixels).convert(mode), io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = turned
    image.save(sink, kind, **({"quality": 90, "exif": exif} if kind == "JPEG" else {}))
    return sink.getvalue()


def limits_of(folder: Path, **changes: object) -> StoredImagesConfig:
    fetch = FetchConfig(
        private_hosts=("127.0.0.1",), allowed_folders=(str(folder / "feed"),), seconds=2, retries=0, threads=4
    )
    return replace(StoredImagesConfig(store=str(folder / "pictures"), fetch=fetch), **changes)


def web_picture(server: PictureServer, path: str = "/a.jpg", version: str = "v1") -> list[dict[str, object]]:
    return [{"bytes": None, "uri": server.url(path), "version": version}]


def only_file(limits: StoredImagesConfig) -> Path:
    [file] = copies_of(limits).files()
    return Path(limits.store) / "scaled" / file.path


@pytest.fixture
def limits(tmp_path: Path, server: PictureServer) -> Iterator[StoredImagesConfig]:
    server.answers["/a.jpg"] = answer("200 OK", photograph(1200, 900))
    return limits_of(tmp_path)


def test_a_picture_is_fetched_once_and_both_readings_have_the_same_pixels(
    server: PictureServer, limits: StoredImagesConfig
) -> None:
    first = first_usable(web_picture(server), SQUARE, limits, keep_bytes=True)
    [again] = first_usable_of_each([web_picture(server)], SQUARE, limits, keep_bytes=True)
    assert first.pixels is not None
    assert first.data is not None
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.data == again.data, len(server.requests)) == (True, 1)
    assert max(Image.open(io.BytesIO(first.data)).size) == 300


def test_another_version_is_fetched_again(server: PictureServer, limits: StoredImagesConfig) -> None:
    old = first_usable(web_picture(server), SQUARE, limits)
    server.answers["/a.jpg"] = answer("200 OK", photograph(900, 1200))
    new = first_usable(web_picture(server, version="v2"), SQUARE, limits)
    assert len(server.requests) == 2
    assert (old.pixels != new.pixels).any()


def test_a_copy_of_other_settings_is_not_read(server: PictureServer, limits: StoredImagesConfig) -> None:
    for settings in ({}, {"scaled_side": 300}, {"max_pixels": 2_000_000}, {"keep_scaled": False}):
        assert first_usable(web_picture(server), SQUARE, replace(limits, **settings)).reason is None
    assert len(server.requests) == 4
    assert first_usable(web_picture(server), SQUARE, replace(limits, max_pixels=10)).reason is Reason.IMAGE_TOO_LARGE


def test_without_copies_nothing_is_kept(server: PictureServer, limits: StoredImagesConfig) -> None:
    without = replace(limits, keep_scaled=False)
    for _ in range(2):
        first_usable(web_picture(server), SQUARE, without)
    assert (len(server.requests), scaled_copies(without), Path(limits.store).exists()) == (2, None, False)


@pytest.mark.parametrize("damage", ["empty", "cut off", "another byte", "not a copy"])
def test_a_damaged_copy_is_made_again(server: PictureServer, limits: StoredImagesConfig, damage: str) -> None:
    whole = first_usable(web_picture(server), SQUARE, limits)
    file = only_file(limits)
    good = file.read_bytes()
    middle = len(good) // 2
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    file.write_bytes(
        {"empty": b"", "cut off": good[:-900], "another byte": changed, "not a copy": photograph(40, 40)}[damage]
    )
    np.testing.assert_array_equal(first_usable(web_picture(server), SQUARE, limits).pixels, whole.pixels)
    assert (len(server.requests), file.read_bytes()) == (2, good)


def test_writers_at_once_leave_a_whole_copy(server: PictureServer, limits: StoredImagesConfig) -> None:
    first_usable_of_each([web_picture(server)] * 8, SQUARE, limits)
    copies = copies_of(limits)
    [file] = copies.files()
    assert copies.get(file.name) is not None


def test_a_store_that_cannot_be_written_costs_no_picture(tmp_path: Path, server: PictureServer) -> None:
    server.answers["/a.jpg"] = answer("200 OK", photograph(1200, 900))
    (tmp_path / "pictures").write_text("a file, not a folder")
    assert first_usable(web_picture(server), SQUARE, limits_of(tmp_path)).pixels is not None


@pytest.mark.parametrize("size", [(577, 400), (700, 933), (1200, 1200), (2500, 1700), (5000, 240)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_pixels_of_a_copy_are_almost_those_of_the_picture(size: tuple[int, int], kind: str) -> None:
    data = photograph(*size, kind)
    copied = decode_image(data, SQUARE, StoredImagesConfig())
    full = decode_image(data, SQUARE, StoredImagesConfig(keep_scaled=False))
    assert copied.data is not None
    assert copied.pixels is not None
    assert full.pixels is not None
    assert 288 <= max(Image.open(io.BytesIO(copied.data)).size) < 2 * 288
    assert np.abs(copied.pixels.astype(int) - full.pixels).mean() < 2.5  # of 255; the noise is most of it


def test_a_small_picture_is_its_own_copy_and_none_is_enlarged() -> None:
    for data in (photograph(224, 100), photograph(575, 575), photograph(100, 90, "PNG")):
        assert decode_image(data, SQUARE, StoredImagesConfig()).data is data


def test_a_copy_is_upright_and_on_white() -> None:
    turned = decode_image(photograph(1200, 600, turned=6), SQUARE, StoredImagesConfig())
    assert turned.data is not None
    assert Image.open(io.BytesIO(turned.data)).size == (150, 300)
    clear, sink = Image.new("RGBA", (800, 800), (0, 0, 0, 0)), io.BytesIO()
    clear.save(sink, "PNG")
    assert (decode_image(sink.getvalue(), SQUARE, StoredImagesConfig()).pixels == 255).all()


def local_picture(file: Path, limits: StoredImagesConfig) -> dict[str, object]:
    """The picture as an import has it now."""
    return {"bytes": None, "uri": str(file), "version": picture_sources(limits).version(str(file))}


def test_a_local_picture_has_a_copy_if_that_is_smaller(tmp_path: Path) -> None:
    limits = limits_of(tmp_path)
    (tmp_path / "feed").mkdir()
    for name, side in (("small", 200), ("large", 1200)):
        (tmp_path / "feed" / name).write_bytes(photograph(side, side))
        picture = local_picture(tmp_path / "feed" / name, limits)
        assert first_usable([picture], SQUARE, limits).pixels is not None
    first_usable([picture | {"version": MISSING}], SQUARE, limits)  # the file came after the import
    copies = copies_of(limits)
    assert [file.name for file in copies.files()] == [copies.key(str(picture["uri"]), str(picture["version"]))]


def test_a_local_picture_that_was_replaced_after_the_import_has_no_copy(tmp_path: Path) -> None:
    limits, file = limits_of(tmp_path), tmp_path / "feed" / "a.jpg"
    file.parent.mkdir()
    file.write_bytes(photograph(1200, 900))
    imported = local_picture(file, limits)
    file.write_bytes(photograph(900, 1200))
    assert first_usable([imported], SQUARE, limits).pixels is not None
    assert list(copies_of(limits).files()) == []
    first_usable([local_picture(file, limits)], SQUARE, limits)
    assert len(list(copies_of(limits).files())) == 1


def test_a_picture_that_may_not_be_fetched_has_no_copy(server: PictureServer, limits: StoredImagesConfig) -> None:
    refused = replace(limits, fetch=FetchConfig())
    assert first_usable(web_picture(server), SQUARE, refused).reason is Reason.IMAGE_NOT_ALLOWED
    assert (server.connections, list(copies_of(limits).files())) == (0, [])


def test_revalidating_asks_and_reads_the_body_only_of_a_changed_picture(
    server: PictureServer, limits: StoredImagesConfig
) -> None:
    asking = replace(limits, revalidate=True)
    server.answers["/a.jpg"] = [
        answer("200 OK", photograph(1200, 900), 'ETag: "one"', "Last-Modified: Mon, 01 Jun 2026 00:00:00 GMT"),
        answer("304 Not Modified"),
        answer("200 OK", photograph(900, 1200), 'ETag: "two"'),
        answer("503 Busy"),
    ]
    first, same, changed, unreachable = (first_usable(web_picture(server), SQUARE, asking).pixels for _ in range(4))
    np.testing.assert_array_equal(first, same)
    assert (first != changed).any()
    np.testing.assert_array_equal(changed, unreachable)
    copies = copies_of(asking)
    [file] = copies.files()
    kept = copies.get(file.name)
    assert kept is not None
    assert kept.validators == ('"two"', "")
    assert len(server.requests) == 4


def test_a_write_that_was_cut_off_is_listed_for_removal(tmp_path: Path) -> None:
    limits = limits_of(tmp_path)
    copies: ScaledCopies = copies_of(limits)
    key = copies.key("u", "v")
    copies.put(key, Copy(b"data"))
    folder = Path(limits.store) / "scaled" / key[:2] / key[2:4]
    (folder / f"{key}.{'0' * 36}").write_bytes(b"half")
    (folder / "notes.txt").write_text("of another program")
    assert len(list(copies.files())) == 2
