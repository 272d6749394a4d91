"""Every picture case of the house, with real encoded bytes."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import decode_image, first_usable
from catalog_enrichment.records import Reason

LIMITS = ImagesConfig()
RED, WHITE = (200, 30, 30), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 120, height: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(data: bytes, size: int = 32) -> np.ndarray:
    decoded = decode_image(data, size, LIMITS)
    assert decoded.reason is None, decoded.detail
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (size, size, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.writeable
    return decoded.pixels


def close(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


# ---- usable


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_every_common_format_decodes(kind: str) -> None:
    assert close(pixels(encoded(Image.new("RGB", (50, 50), RED), kind))[16, 16], RED)


def test_a_wide_picture_is_kept_whole_on_a_white_square() -> None:
    square = pixels(encoded(Image.new("RGB", (64, 32), RED)))
    assert close(square[0, 16], WHITE)
    assert close(square[31, 16], WHITE)
    assert close(square[16, 0], RED)
    assert close(square[16, 31], RED)
    assert close(square[9, 16], RED)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 2), (7, 5)])
def test_tiny_and_extreme_shapes_decode(shape: tuple[int, int]) -> None:
    pixels(encoded(Image.new("RGB", shape, RED)))


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
    decoded = decode_image(data, 32, limits)
    assert decoded.pixels is None
    assert decoded.detail
    return decoded.reason


def test_zero_bytes() -> None:
    assert reason(b"") is Reason.IMAGE_EMPTY


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated(kind: str, share: float) -> None:
    data = encoded(noise(), kind)
    assert reason(data[: int(len(data) * share)]) is Reason.IMAGE_TRUNCATED


@pytest.mark.parametrize("data", [b"this is no picture", b"<html>404</html>", b"\0" * 500, b"%PDF-1.7 ...", b"x"])
def test_text_named_jpg_is_not_an_image(data: bytes) -> None:
    assert reason(data) is Reason.IMAGE_NOT_AN_IMAGE


def test_more_bytes_than_allowed() -> None:
    data = encoded(noise())
    assert reason(data, ImagesConfig(max_bytes=len(data) - 1)) is Reason.IMAGE_TOO_LARGE
    assert decode_image(data, 32, ImagesConfig(max_bytes=len(data))).pixels is not None


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
        decoded = decode_image(bytes(data), 32, LIMITS)
        assert (decoded.pixels is None) == (decoded.reason is not None)


# ---- a product's ordered pictures


def struct_of(data: bytes | None = None, uri: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "uri": uri, "version": None}


GOOD = encoded(Image.new("RGB", (40, 40), RED))


@pytest.mark.parametrize("images", [None, [], np.array([], dtype=object)])
def test_no_images(images: Any) -> None:
    assert first_usable(images, 32, LIMITS).reason is Reason.NO_IMAGE


def test_the_first_usable_picture_is_taken() -> None:
    blue = encoded(Image.new("RGB", (40, 40), (0, 0, 255)))
    decoded = first_usable([struct_of(b""), struct_of(GOOD), struct_of(blue)], 32, LIMITS)
    assert decoded.reason is None
    assert decoded.pixels is not None
    assert close(decoded.pixels[16, 16], RED)


def test_of_several_failures_the_first_one_is_reported() -> None:
    images = [struct_of(b"text"), struct_of(b""), struct_of(uri="/nowhere.jpg")]
    assert first_usable(images, 32, LIMITS).reason is Reason.IMAGE_NOT_AN_IMAGE


def test_an_image_without_bytes_and_uri_is_missing() -> None:
    assert first_usable([struct_of()], 32, LIMITS).reason is Reason.IMAGE_MISSING


def test_pictures_are_read_from_paths_file_uris_and_fsspec(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(GOOD)
    with fsspec.open("memory://bucket/picture.png", "wb") as file:
        file.write(GOOD)
    for uri in (str(path), path.as_uri(), "memory://bucket/picture.png"):
        assert first_usable([struct_of(uri=uri)], 32, LIMITS).pixels is not None, uri


@pytest.mark.parametrize("uri", ["{}/no.jpg", "file://{}/no.jpg", "memory://bucket/no.jpg", "{}", "no\0.jpg"])
def test_a_file_that_is_not_there_is_missing(tmp_path: Path, uri: str) -> None:
    assert first_usable([struct_of(uri=uri.format(tmp_path))], 32, LIMITS).reason is Reason.IMAGE_MISSING


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert first_usable([struct_of(uri=str(tmp_path / "pipe.jpg"))], 32, LIMITS).reason is Reason.IMAGE_MISSING


def test_any_other_failure_to_fetch_is_unreadable() -> None:
    decoded = first_usable([struct_of(uri="nosuchprotocol://x/y.jpg")], 32, LIMITS)
    assert decoded.reason is Reason.IMAGE_UNREADABLE
    assert decoded.detail


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that no memory holds
    assert first_usable([struct_of(uri=str(path))], 32, ImagesConfig(max_bytes=1000)).reason is Reason.IMAGE_TOO_LARGE
