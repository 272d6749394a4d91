"""The square that a model reads, and how a picture is fitted into it.

The whole picture is scaled into the square and the rest is white, like the background of most catalog pictures.
Cropping would cut off parts of tall products; stretching would change proportions. A recipe may have the margins around
the product cut off first. A change of this file changes the inputs of models: see `preprocess.VERSION`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageOps

_WHITE = (255, 255, 255)
_UINT16_STEP = 257  # 65535 / 255
_ANALYSIS_SIDE = 256
"""Margins of a larger picture are looked for in the picture shrunk to this side, pixels."""
_TOLERANCE = 16
"""The largest difference from the background's colour, in a channel of 256 levels, that is still background: the noise
of JPEG."""
_MARGIN_SHARE = 0.04
"""The margin that is left around the product, as a share of its longer side."""
_SMALLEST_PRODUCT_SHARE = 0.1
"""Anything smaller, as a share of the picture's longer side, is taken for a speck, and the picture is left whole."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first pixels outside."""


@dataclass(frozen=True, slots=True)
class Square:
    """The square that a model's pictures are fitted into (`model.image.size` and `model.image.trim`)."""

    side: int
    """Pixels."""
    trim: bool = False
    """Cut off the margins around the product, so that it fills the square; see :func:`product_box`."""

    @property
    def wanted_side(self) -> int:
        """Return the longest side that a picture should have at least, pixels, lest the product is enlarged.

        With twice the side, a product that fills half of its picture is not enlarged after its margins are cut off.
        """
        return self.side * (2 if self.trim else 1)

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Fit a picture just opened into uint8 (side, side, 3), RGB, with EXIF rotation and white for transparency.

        Raises almost any exception for malformed data.
        """
        # JPEG can be decoded at 1/2, 1/4 or 1/8 for a fraction of the work; draft keeps at least the requested size.
        scale = self.wanted_side / max(image.size)
        image.draft(None, (round(image.width * scale) or 1, round(image.height * scale) or 1))
        picture = simple_mode(upright(image))
        left, top, right, bottom = product_box(picture) if self.trim else (0, 0, *picture.size)
        longer = max(right - left, bottom - top)
        width, height = (max(1, round(length * self.side / longer)) for length in (right - left, bottom - top))
        fitted = picture.resize(
            (width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom), reducing_gap=2.0
        )
        if fitted.size == (self.side, self.side) and fitted.mode == "RGB":
            return np.array(fitted)
        canvas = Image.new("RGB", (self.side, self.side), _WHITE)
        corner = ((self.side - width) // 2, (self.side - height) // 2)
        canvas.paste(fitted, corner, mask=fitted.getchannel("A") if fitted.mode == "RGBA" else None)
        return np.array(canvas)


def product_box(image: Image.Image) -> Box:
    """Return the box where an RGB or RGBA picture differs from its background, with a thin margin.

    The background's colour is the median of the border's pixels. The box is the whole picture if fewer than three of
    its corners have that colour (a close-up, or a scene), or if nothing or a speck differs. Limit: if a product has
    nearly the background's colour, only the differing part is found, such as the print of a white shirt on white.
    """
    whole = (0, 0, *image.size)
    small = on_white(_shrunk(image))
    pixels = np.asarray(small)  # (h, w, 3)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0).round().astype(int)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)  # (4, 3)
    if np.count_nonzero(np.abs(corners - background).max(axis=1) <= _TOLERANCE) < 3:
        return whole
    difference = ImageChops.difference(small, Image.new("RGB", small.size, tuple(background.tolist())))
    found = difference.point(lambda level: 255 if level > _TOLERANCE else 0).getbbox()
    if found is None:
        return whole
    left, top, right, bottom = found
    longer = max(right - left, bottom - top)
    if longer < _SMALLEST_PRODUCT_SHARE * max(small.size):
        return whole
    margin = _MARGIN_SHARE * longer
    across, down = image.width / small.width, image.height / small.height
    return (
        max(0, round((left - margin) * across)),
        max(0, round((top - margin) * down)),
        min(image.width, round((right + margin) * across)),
        min(image.height, round((bottom + margin) * down)),
    )


def _shrunk(image: Image.Image) -> Image.Image:
    """Return the picture, shrunk to at most :data:`_ANALYSIS_SIDE` pixels a side."""
    longer = max(image.size)
    if longer <= _ANALYSIS_SIDE:
        return image
    width, height = (max(1, round(length * _ANALYSIS_SIDE / longer)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def upright(image: Image.Image) -> Image.Image:
    """Return the decoded picture, turned as its EXIF data says. Raises almost any exception for malformed data."""
    image.load()  # outside the try: a picture that cannot be decoded must raise
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image  # broken EXIF data does not affect the pixels


def simple_mode(image: Image.Image) -> Image.Image:
    """Return the picture as RGB, or as RGBA if it is partly transparent."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # convert("RGB") would clip everything above 255 to white
        grey = np.clip(np.asarray(image), 0, 65535) // _UINT16_STEP
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    mode = "RGBA" if transparent else "RGB"
    return image if image.mode == mode else image.convert(mode)


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGB or RGBA picture as RGB."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas
