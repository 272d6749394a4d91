"""How pictures are fitted into the model's square; with margins kept, see test_images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.inputs.images import decode_image
from catalog_enrichment.inputs.square import Square, product_box

RED, WHITE, GREY = (200, 30, 30), (255, 255, 255), (190, 190, 185)
SIDE = 64


def fitted(image: Image.Image, trim: bool = True, kind: str = "PNG", **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    pixels = decode_image(buffer.getvalue(), Square(SIDE, trim), ImagesConfig()).pixels
    assert pixels is not None
    assert pixels.shape == (SIDE, SIDE, 3)
    return pixels


def product(
    box: tuple[int, int, int, int], size: tuple[int, int] = (200, 200), background: tuple[int, int, int] = WHITE
) -> Image.Image:
    """Draw a red rectangle; ``box``: left, top, right, bottom."""
    image = Image.new("RGB", size, background)
    image.paste(RED, box)
    return image


def red_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the red pixels."""
    red = np.abs(pixels.astype(int) - RED).max(axis=2) < 60
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("background", [WHITE, GREY, (0, 0, 0)])
@pytest.mark.parametrize(("kind", "margin"), [("PNG", 4), ("JPEG", 7)])  # JPEG blurs colours over 16 pixels
def test_a_small_product_fills_the_square_but_for_a_thin_margin(
    background: tuple[int, int, int], kind: str, margin: int
) -> None:
    image = product((120, 20, 180, 80), background=background)
    box, untrimmed = red_box(fitted(image, kind=kind)), red_box(fitted(image, trim=False, kind=kind))
    assert all(1 <= distance <= margin for distance in (*box[:2], *(SIDE - end for end in box[2:])))
    assert untrimmed[2] - untrimmed[0] <= 21


def test_proportions_are_kept_and_the_rest_is_white() -> None:
    pixels = fitted(product((90, 40, 110, 160), background=GREY))
    left, top, right, bottom = red_box(pixels)
    assert (bottom - top) / (right - left) == pytest.approx(6, rel=0.15)
    assert bottom - top >= 56
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, -8:] == 255).all()


def scene(size: int = 120) -> Image.Image:
    """Draw pixels of every colour up to the border."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


DOTTED = product((100, 100, 104, 104))


@pytest.mark.parametrize("picture", [scene(), Image.new("RGB", (90, 60), WHITE), DOTTED, product((0, 0, 200, 200))])
def test_a_picture_without_margins_or_without_a_product_stays_whole(picture: Image.Image) -> None:
    np.testing.assert_array_equal(fitted(picture), fitted(picture, trim=False))


def test_a_frame_of_another_colour_is_no_margin() -> None:
    framed = product((80, 80, 120, 120))
    ImageDraw.Draw(framed).rectangle((20, 20, 179, 179), outline=(0, 0, 0), width=4)
    dark = (fitted(framed).astype(int).max(axis=2) < 100).sum()
    assert dark > 3 * SIDE  # the frame is part of what is kept


def test_noise_of_compression_is_no_content() -> None:
    left, top, right, bottom = red_box(fitted(product((60, 60, 140, 140)), kind="JPEG", quality=40))
    assert min(right - left, bottom - top) >= 44  # untrimmed 26


def test_transparent_margins_are_cut_like_white_ones() -> None:
    image = scene(200).convert("RGBA")  # what is under the transparency does not count
    image.putalpha(0)
    image.paste((*RED, 255), (80, 80, 120, 120))
    opaque = product((80, 80, 120, 120))
    assert product_box(image) == product_box(opaque)
    assert np.abs(fitted(image).astype(int) - fitted(opaque)).mean() < 1


def test_margins_are_those_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    wide = fitted(product((20, 90, 180, 110)), kind="JPEG", quality=95, exif=exif)
    left, top, right, bottom = red_box(wide)
    assert bottom - top > 4 * (right - left)


def test_the_details_of_a_small_product_in_a_large_jpeg_are_read() -> None:
    """The draft decode must not shrink the picture to the square's side before the margins are cut."""
    image = Image.new("RGB", (2048, 2048), WHITE)
    stripes = np.zeros((640, 640, 3), dtype=np.uint8)
    stripes[:, np.arange(640) // 20 % 2 == 0] = 255
    stripes[[0, -1]] = 0
    stripes[:, [0, -1]] = 0
    image.paste(Image.fromarray(stripes), (704, 704))
    row = fitted(image, kind="JPEG", quality=95)[SIDE // 2].astype(int).mean(axis=1)
    assert row[8:-8].std() > 60


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 2), (7, 5)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_tiny_and_extreme_shapes(shape: tuple[int, int], mode: str) -> None:
    half = Image.new("RGB", shape, WHITE)
    half.paste(RED, (0, 0, max(1, shape[0] // 2), max(1, shape[1] // 2)))
    fitted(half.convert(mode))


# ---- the box


def close(box: tuple[int, ...], expected: tuple[int, ...], by: int) -> bool:
    return all(abs(edge - right) <= by for edge, right in zip(box, expected, strict=True))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 600), (500, 150, 900, 300)),  # larger than what is looked at, wider than high
        ((600, 1000), (60, 700, 160, 950)),
        ((120, 90), (30, 20, 50, 60)),  # looked at as it is
    ],
)
def test_the_box_is_that_of_the_product_and_a_margin_of_a_25th(
    size: tuple[int, int], box: tuple[int, int, int, int], mode: str
) -> None:
    margin = 0.04 * max(box[2] - box[0], box[3] - box[1])
    expected = (*(edge - margin for edge in box[:2]), *(edge + margin for edge in box[2:]))
    found = product_box(product(box, size).convert(mode))
    assert close(found, tuple(map(round, expected)), by=max(size) // 256 + 2)


@pytest.mark.parametrize("box", [(100, 40, 200, 160), (40, 100, 160, 200), (40, 0, 160, 60), (0, 40, 60, 160)])
def test_the_box_ends_where_the_picture_ends(box: tuple[int, int, int, int]) -> None:
    found = product_box(product(box))
    assert all(0 <= edge <= 200 for edge in found)
    assert close(found, box, by=7)
    assert found != (0, 0, 200, 200)


def test_a_close_up_with_a_light_band_is_not_cut_down_to_the_band() -> None:
    cloth = Image.new("RGB", (200, 200), (20, 30, 90))
    cloth.paste(WHITE, (0, 0, 200, 60))
    assert product_box(cloth) == (0, 0, 200, 200)


@pytest.mark.parametrize("corners", [1, 2])
def test_three_corners_must_be_background(corners: int) -> None:
    """A product may reach a corner, as a sleeve does; with two it may be a close-up."""
    image = product((80, 80, 120, 120))
    for left in (0, 180)[:corners]:
        image.paste((30, 30, 200), (left, 0, left + 20, 20))
    assert (product_box(image) == (0, 0, 200, 200)) is (corners == 2)


@pytest.mark.parametrize(("length", "is_cut"), [(34, True), (26, False)])
def test_a_product_is_at_least_a_tenth_of_the_longer_side(length: int, is_cut: bool) -> None:
    """A thin product, such as a chain, counts too."""
    wide = product((100, 80, 100 + length, 83), (300, 160))
    assert (product_box(wide) != (0, 0, 300, 160)) is is_cut
    assert (product_box(wide.transpose(Image.Transpose.ROTATE_90)) != (0, 0, 160, 300)) is is_cut


@pytest.mark.parametrize(("level", "is_cut"), [(16, False), (17, True)])
def test_what_differs_by_more_than_16_levels_in_a_channel_is_no_background(level: int, is_cut: bool) -> None:
    image = Image.new("RGB", (200, 200), WHITE)
    image.paste((255, 255 - level, 255), (80, 80, 120, 120))
    assert (product_box(image) != (0, 0, 200, 200)) is is_cut
