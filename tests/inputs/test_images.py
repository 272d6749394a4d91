"""Pictures to a square, with real encoded bytes; and the counts of unusable pictures."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from catalog_enrichment.config.images import FetchConfig, ImagesConfig
from catalog_enrichment.inputs import images as images_module
from catalog_enrichment.inputs.images import (
    MIN_TRIED,
    UnusablePictures,
    decode_image,
    first_usable,
    first_usable_of_each,
)
from catalog_enrichment.inputs.picture_sources import Fetched, picture_sources
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.reasons import Reason
from catalog_enrichment.web.limits import Deadline

LIMITS = ImagesConfig()
RED, WHITE = (200, 30, 30), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 120, height: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(data: bytes, size: int = 32) -> np.ndarray:
    decoded = decode_image(data, Square(size), LIMITS)
    assert decoded.reason is None, decoded.detail
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (size, size, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.writeable
    return decoded.pixels


def close(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


# ---- usable


AVIF = pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", AVIF])
def test_every_common_format_decodes(kind: str) -> None:
    assert close(pixels(encoded(Image.new("RGB", (50, 50), RED), kind))[16, 16], RED)


def test_a_wide_picture_is_kept_whole_on_a_white_square() -> None:
    square = pixels(encoded(Image.new("RGB", (64, 32), RED)))
    assert close(square[0, 16], WHITE)
    assert close(square[31, 16], WHITE)
    assert close(square[16, 0], RED)
    assert close(square[16, 31], RED)
    assert close(square[9, 16], RED)


def test_a_large_jpeg_decoded_at_reduced_scale_looks_like_the_full_decode() -> None:
    gradient = np.linspace(0, 255, 1600).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(gradient, (1000, 1))] * 3, axis=2))
    jpeg, png = pixels(encoded(image, "JPEG", quality=95), 64), pixels(encoded(image), 64)
    assert np.abs(jpeg.astype(int) - png).mean() < 2


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("RGB", (40, 40), RED).convert("CMYK")
    assert close(pixels(encoded(image, "JPEG", quality=95))[16, 16], RED, 12)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    image = Image.fromarray(np.full((40, 40), 32768, dtype=np.uint16))
    assert close(pixels(encoded(image, kind))[16, 16], (127, 127, 127), 1)


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([0, 0, 0, *RED])
    image.paste(1, (0, 0, 20, 40))
    square = pixels(encoded(image, transparency=0))
    assert close(square[16, 4], RED)
    assert close(square[16, 28], WHITE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (40, 40), (*RED, 0)).convert(mode)
    assert close(pixels(encoded(image))[16, 16], WHITE)
    half = Image.new("RGBA", (40, 40), (0, 0, 0, 128)).convert(mode)
    assert close(pixels(encoded(half))[16, 16], (127, 127, 127))


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert close(pixels(data)[16, 16], RED, 10)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (64, 64), WHITE)
    image.paste(RED, (0, 0, 32, 64))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: left comes to the top
    square = pixels(encoded(image, "JPEG", exif=exif, quality=95))
    assert close(square[4, 16], RED, 12)
    assert close(square[28, 16], WHITE, 12)


def test_a_picture_with_broken_exif_is_usable() -> None:
    assert close(pixels(encoded(Image.new("RGB", (40, 40), RED), "JPEG", exif=b"Exif\0\0garbage"))[16, 16], RED)


# ---- unusable


def reason(data: bytes, limits: ImagesConfig = LIMITS) -> Reason | None:
    decoded = decode_image(data, Square(32), limits)
    assert decoded.pixels is None
    assert decoded.detail
    return decoded.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated(kind: str, share: float) -> None:
    data = encoded(noise(), kind)
    assert reason(data[: int(len(data) * share)]) is Reason.IMAGE_TRUNCATED


def test_no_bytes_are_empty_and_text_named_jpg_is_not_an_image() -> None:
    assert reason(b"") is Reason.IMAGE_EMPTY
    for data in (b"this is no picture", b"<html>404</html>", b"\0" * 500, b"%PDF-1.7 ...", b"x"):
        assert reason(data) is Reason.IMAGE_NOT_AN_IMAGE, data


def test_postscript_of_a_merchant_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for Ghostscript once
    assert reason(encoded(Image.new("RGB", (40, 40), RED), "EPS")) is Reason.IMAGE_NOT_AN_IMAGE
    assert not called.exists()


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "JPEG2000"])
def test_a_format_that_shops_do_not_use_is_not_an_image(kind: str) -> None:
    assert reason(encoded(Image.new("RGB", (40, 40), RED), kind)) is Reason.IMAGE_NOT_AN_IMAGE


def test_more_bytes_than_allowed() -> None:
    data = encoded(noise())
    assert reason(data, ImagesConfig(max_bytes=len(data) - 1)) is Reason.IMAGE_TOO_LARGE
    assert decode_image(data, Square(32), ImagesConfig(max_bytes=len(data))).pixels is not None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_000, 12_000, 50_000])
def test_a_decompression_bomb_is_refused_by_its_header_alone(side: int) -> None:
    """The three sizes lie below Pillow's own limits, where it warns, and where it raises."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    assert reason(b"\x89PNG\r\n\x1a\n" + body) is Reason.IMAGE_TOO_LARGE


@pytest.mark.filterwarnings("error")
def test_a_bomb_is_refused_where_warnings_are_errors() -> None:
    data = encoded(Image.new("1", (12_000, 12_000)))
    assert reason(data) is Reason.IMAGE_TOO_LARGE


def test_damage_inside_a_complete_file_is_unreadable() -> None:
    data = bytearray(encoded(noise()))
    start = data.index(b"IDAT") + 20
    data[start : start + 200] = os.urandom(200)
    assert reason(bytes(data)) is Reason.IMAGE_UNREADABLE


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_random_damage_never_raises(kind: str) -> None:
    """I7"""
    original, random = encoded(noise(40, 30), kind), np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(original)
        for position in random.integers(0, len(data), 8):
            data[position] = random.integers(0, 256)
        decoded = decode_image(bytes(data), Square(32), LIMITS)
        assert (decoded.pixels is None) == (decoded.reason is not None)


# ---- a product's ordered pictures


def struct_of(data: bytes | None = None, uri: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "uri": uri, "version": None}


GOOD = encoded(Image.new("RGB", (40, 40), RED))


@pytest.mark.parametrize("images", [None, [], np.array([], dtype=object)])
def test_no_images(images: Any) -> None:
    assert first_usable(images, Square(32), LIMITS).reason is Reason.NO_IMAGE


def test_the_first_usable_picture_is_taken() -> None:
    blue = encoded(Image.new("RGB", (40, 40), (0, 0, 255)))
    decoded = first_usable([struct_of(b""), struct_of(GOOD), struct_of(blue)], Square(32), LIMITS)
    assert decoded.reason is None
    assert decoded.pixels is not None
    assert close(decoded.pixels[16, 16], RED)


def test_the_first_of_several_failures_is_reported() -> None:
    images = [struct_of(b"text"), struct_of(b""), struct_of(uri="/nowhere.jpg")]
    assert first_usable(images, Square(32), LIMITS).reason is Reason.IMAGE_NOT_AN_IMAGE


def test_an_image_without_bytes_and_uri_is_missing() -> None:
    assert first_usable([struct_of()], Square(32), LIMITS).reason is Reason.IMAGE_MISSING
    not_imported = first_usable([struct_of() | {"version": "too_large:201326592"}], Square(32), LIMITS)
    assert (not_imported.reason, not_imported.detail) == (Reason.IMAGE_TOO_LARGE, "201326592 bytes, not imported")


def limits_for(folder: Path | str, **limits: Any) -> ImagesConfig:
    return ImagesConfig(fetch=FetchConfig(allowed_folders=(str(folder),)), **limits)


def test_a_reference_is_fetched_and_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(GOOD)
    for uri in (str(path), path.as_uri()):
        assert first_usable([struct_of(uri=uri)], Square(32), limits_for(tmp_path)).pixels is not None, uri
    assert first_usable([struct_of(uri=str(path))], Square(32), LIMITS).reason is Reason.IMAGE_NOT_ALLOWED
    path.write_bytes(GOOD[:-20])
    truncated = first_usable([struct_of(uri=str(path))], Square(32), limits_for(tmp_path))
    assert truncated.reason is Reason.IMAGE_TRUNCATED
    assert truncated.detail.startswith(f"{path}: ")


def outages(uri: str, _: Deadline) -> Fetched:
    return Fetched(None, Reason.IMAGE_UNREACHABLE if "down" in uri else Reason.IMAGE_MISSING, "details")


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([struct_of(uri="gone"), struct_of(uri="down"), struct_of(b"")], Reason.IMAGE_UNREACHABLE),
        ([struct_of(uri="down"), struct_of(uri="gone")], Reason.IMAGE_UNREACHABLE),
        ([struct_of(uri="gone"), struct_of(b"")], Reason.IMAGE_MISSING),
        ([struct_of(uri="down"), struct_of(GOOD)], None),
    ],
)
def test_an_outage_is_the_reason_wherever_no_other_picture_is_usable(
    images: list[dict[str, Any]], reason: Reason | None
) -> None:
    assert first_usable(images, Square(32), LIMITS, outages).reason is reason


def test_so_many_pictures_of_a_product_are_tried_and_no_more() -> None:
    tried: list[str] = []

    def missing(uri: str, _: Deadline) -> Fetched:
        tried.append(uri)
        return Fetched(None, Reason.IMAGE_MISSING, "details")

    pictures = [struct_of(uri=str(number)) for number in range(10_000)]
    decoded = first_usable(pictures, Square(32), LIMITS, missing)
    assert tried == [str(number) for number in range(20)]
    assert (decoded.reason, decoded.detail[:33]) == (Reason.IMAGE_MISSING, "details; 9980 more pictures were ")
    assert first_usable(pictures[:20], Square(32), LIMITS, missing).detail == "details"
    assert first_usable([struct_of(GOOD)] * 3, Square(32), ImagesConfig(max_per_product=1)).pixels is not None


def test_references_of_several_products_are_fetched_at_the_same_time_and_come_back_in_order(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=5)
    limits = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),), threads=3))
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    for number, colour in enumerate(colours):
        (tmp_path / f"{number}.png").write_bytes(encoded(Image.new("RGB", (40, 40), colour)))
    fetch = picture_sources(limits).fetch

    def at_the_same_time(uri: str, _: Deadline) -> Fetched:
        together.wait()  # breaks if they are fetched after each other
        return fetch(uri)

    products: list[Any] = [[struct_of(uri=str(tmp_path / f"{number}.png"))] for number in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture_sources(limits), "fetch", at_the_same_time)
        decoded = first_usable_of_each([*products, None, [struct_of(GOOD)]], Square(32), limits)
    assert [picture.reason for picture in decoded] == [None, None, None, Reason.NO_IMAGE, None]
    for picture, colour in zip(decoded, colours, strict=False):
        assert picture.pixels is not None
        assert close(picture.pixels[16, 16], colour)


def test_fetched_pictures_are_decoded_after_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    def slow(data: bytes, size: int, limits: ImagesConfig) -> images_module.Decoded:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1
        return images_module.Decoded(None, Reason.IMAGE_EMPTY)

    monkeypatch.setattr(images_module, "decode_image", slow)
    monkeypatch.setattr(picture_sources(LIMITS), "fetch", lambda *_: Fetched(b"data"))
    first_usable_of_each([[struct_of(uri=str(number))] for number in range(6)], Square(32), LIMITS)
    assert most == 1


# ---- products without a usable picture


def pictures(**by_reason: int) -> UnusablePictures:
    """Count pictures: ``usable=3, image_missing=2`` are three usable pictures and two missing pictures."""
    counted = UnusablePictures()
    for reason, count in by_reason.items():
        counted.add([(None if reason == "usable" else Reason(reason), f"/a/{reason}.jpg: details")] * count)
    return counted


def test_products_without_any_picture_do_not_count() -> None:
    counted = pictures(usable=3, no_image=50, image_missing=2)
    assert (counted.tried, counted.unusable, dict(counted.by_reason)) == (5, 2, {"image_missing": 2})


@pytest.mark.parametrize(
    ("usable", "missing", "max_unusable", "too_many"),
    [
        (2, 18, 0.9, False),
        (1, 19, 0.9, True),
        (0, MIN_TRIED - 1, 0.9, False),
        (0, MIN_TRIED, 0.9, True),
        (0, MIN_TRIED, 1.0, False),
        (20, 1, 0.0, True),
        (21, 0, 0.0, False),
    ],
)
def test_more_than_the_share_of_enough_products_is_too_many(
    usable: int, missing: int, max_unusable: float, too_many: bool
) -> None:
    assert pictures(usable=usable, image_missing=missing).too_many(max_unusable) is too_many


def test_the_sentence_names_the_most_frequent_reason_and_its_first_example() -> None:
    assert pictures(usable=3).sentence() == ""
    assert pictures(image_truncated=2, usable=1, image_missing=5).sentence() == (
        "7 of 8 products with pictures have no usable picture, most often image_missing (5), for example "
        "/a/image_missing.jpg: details. Is source.image_folder the right folder, and is it there?"
    )
    assert pictures(image_truncated=1).sentence().endswith("/a/image_truncated.jpg: details.")
