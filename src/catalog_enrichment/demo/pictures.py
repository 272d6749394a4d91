"""The pictures of the generated marketplace: an object in its colour, below it a swatch of every material.

A swatch has the undyed colour and the texture of its material. A picture that does not show the colour is a grey shape
with a black outline; a picture that does not show the material has no swatches. Light, tint, position and noise vary
between pictures; the same seed gives the same bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 96
"""Width and height of every picture, pixels."""

_OUTLINES = {
    "shirt": [
        *((20, 10), (50, 16), (80, 10), (100, 35), (84, 44), (78, 36)),
        *((78, 100), (22, 100), (22, 36), (16, 44), (0, 35)),
    ],
    "trousers": [(20, 0), (80, 0), (90, 100), (58, 100), (50, 40), (42, 100), (10, 100)],
    "skirt": [(30, 5), (70, 5), (100, 95), (0, 95)],
    "shoe": [(0, 25), (45, 20), (60, 50), (100, 62), (100, 90), (0, 90)],
    "bag": [(30, 25), (36, 0), (64, 0), (70, 25), (95, 30), (100, 100), (0, 100), (5, 30)],
    "cloth": [(5, 5), (95, 2), (100, 95), (0, 100)],
}
"""Corners of each shape in percent of its box, y downwards."""

_UNDYED = {
    "Cotton": (250, 250, 250),
    "Denim": (70, 90, 130),
    "Leather": (90, 60, 40),
    "Linen": (200, 180, 130),
    "Silk": (150, 235, 245),
    "Wool": (240, 120, 60),
}
_SWATCH_HEIGHT = 32
"""Height in pixels, at the bottom of the picture."""


def render(outline: str, rgb: tuple[int, int, int] | None, materials: tuple[str, ...], seed: int) -> NDArray[np.uint8]:
    """Return a picture, (SIZE, SIZE, 3) uint8. ``rgb`` None: without the colour; ``materials`` (): without swatches."""
    rng = np.random.default_rng(seed)
    shape, edge = _silhouette(outline, rng)
    ramp = np.linspace(-1, 1, SIZE)
    light = 1 + np.add.outer(ramp * rng.uniform(-0.1, 0.1), ramp * rng.uniform(-0.1, 0.1))
    if rgb is not None:
        background, body = np.full(3, rng.uniform(228, 248)), np.array(rgb) + rng.normal(0, 4, 3)
    else:
        background, body = np.full(3, 244.0), np.full(3, rng.uniform(110, 190))
    pixels = np.where(shape[..., None], body, background)
    if rgb is None:
        pixels[edge] = 0  # the outline tells it apart from a picture of a grey object
    if materials:
        pixels[-_SWATCH_HEIGHT:] = _swatches(materials, rng)
    noisy: NDArray[np.float64] = pixels * light[..., None] + rng.normal(0, 5, (SIZE, SIZE, 1))
    return noisy.clip(0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return ``pixels`` (h, w, 3) encoded as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@cache
def bomb() -> bytes:
    """Return a decompression bomb: a PNG of about 18 kB with 12,000 x 12,000 pixels."""
    side = 12_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)  # one bit per pixel, greyscale
    scanlines = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", scanlines) + chunk(b"IEND", b"")


def _silhouette(outline: str, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return masks of the shape and its outline, each (SIZE, SIZE), with a small random rotation, shift and scale."""
    angle, scale = rng.uniform(-0.12, 0.12), SIZE * rng.uniform(0.72, 0.86)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (np.array(_OUTLINES[outline]) / 100 - 0.5) @ rotation * scale + SIZE / 2 + rng.uniform(-4, 4, 2)
    points = [(float(x), float(y)) for x, y in corners]
    filled, line = Image.new("1", (SIZE, SIZE)), Image.new("1", (SIZE, SIZE))
    ImageDraw.Draw(filled).polygon(points, fill=1)
    ImageDraw.Draw(line).line([*points, points[0]], fill=1, width=4)
    return np.asarray(filled), np.asarray(line)


def _swatches(materials: tuple[str, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the swatches side by side, (_SWATCH_HEIGHT, SIZE, 3)."""
    swatches = []
    for name in materials:
        texture = np.roll(_textures()[name], rng.integers(0, 48, 2), (0, 1))
        swatches.append(np.array(_UNDYED[name]) * (1 - 0.5 * texture[..., None]))
    width = SIZE // len(swatches)
    return np.concatenate([swatch[:_SWATCH_HEIGHT, :width] for swatch in swatches], axis=1)


@cache
def _textures() -> dict[str, NDArray[np.float64]]:
    """Return material -> its texture, (SIZE, SIZE): 1 is darkest, 0 is lightest."""
    y, x = np.mgrid[:SIZE, :SIZE] * (2 * np.pi / SIZE)  # every period divides SIZE, so that np.roll leaves no edge
    grain = np.random.default_rng(0).choice([0.0, 1.0], (SIZE // 8, SIZE // 8))
    return {
        "Cotton": np.where(np.sin(6 * x) > 0, 1.0, 0.0),
        "Denim": np.where(np.sin(6 * (x + y)) > 0.5, 1.0, 0.0),
        "Leather": np.kron(grain, np.ones((8, 8))),
        "Linen": np.where((np.cos(8 * x) > 0.5) | (np.cos(8 * y) > 0.5), 1.0, 0.0),
        "Silk": 0.5 + 0.5 * np.sin(4 * y + 2 * np.sin(x)),
        "Wool": np.where(np.sin(8 * x) * np.sin(8 * y) > 0.3, 1.0, 0.0),
    }
