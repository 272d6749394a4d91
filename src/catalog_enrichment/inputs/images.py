"""Pictures to a square for the model; a bad picture gives a Reason, never an exception.

The whole picture is scaled into the square and the rest is white, like the background of most catalog pictures.
Cropping would cut off parts of tall products; stretching would change proportions.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.fetch_limits import Deadline
from catalog_enrichment.inputs.picture_sources import Fetched, picture_sources, without_secrets
from catalog_enrichment.records import TRANSIENT, Reason

TOO_LARGE = "too_large:"
"""Begins the version of a picture whose bytes were not imported, because of their number; the number follows."""

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")
"""The formats, by Pillow's names, that are decoded. Pillow gives others to programs: it runs Ghostscript on EPS."""

_WHITE = (255, 255, 255)
_UINT16_STEP = 257  # 65535 / 255


@dataclass(frozen=True, slots=True)
class Decoded:
    """A usable picture, or the reason why there is none: exactly one of ``pixels`` and ``reason`` is None."""

    pixels: np.ndarray | None
    """uint8 (size, size, 3), RGB."""
    reason: Reason | None = None
    detail: str = ""


Pictures = Iterable[Mapping[str, Any]]
"""A product's ordered ``{bytes, uri, version}``."""
Fetch = Callable[[str, Deadline], Fetched]
"""(URI, the moment until which the product's pictures are fetched) -> the picture."""


def first_usable(
    images: Pictures | None,
    size: int,
    limits: ImagesConfig,
    fetch: Fetch | None = None,
    decoding: AbstractContextManager[Any] | None = None,
) -> Decoded:
    """The first picture of a product that decodes. Never raises.

    If none does, the reason is that of the first picture that could not be reached, else of the first: it is the
    merchant's main picture. At most `images.max_per_product` are tried, and after `images.fetch.product_seconds` none
    is fetched any more. ``fetch`` opens references, by default under ``limits``; ``decoding`` is held while a fetched
    picture is decoded.
    """
    failure: Decoded | None = None
    listed, deadline = list(images) if images is not None else [], Deadline(limits.fetch.product_seconds)
    for image in listed[: limits.max_per_product]:
        data, uri = image.get("bytes"), image.get("uri")
        if data is not None:
            decoded = decode_image(bytes(data), size, limits)
        elif not uri:
            stored = _stored(str(image.get("version") or ""), limits, deadline)
            with decoding or nullcontext():
                decoded = _decode_fetched("", stored, size, limits)
        else:
            fetched = (fetch or picture_sources(limits).fetch)(str(uri), deadline)
            with decoding or nullcontext():
                decoded = _decode_fetched(str(uri), fetched, size, limits)
        if decoded.pixels is not None:
            return decoded
        if failure is None or (decoded.reason in TRANSIENT and failure.reason not in TRANSIENT):
            failure = decoded
    if failure and len(listed) > limits.max_per_product:
        untried = f"{len(listed) - limits.max_per_product} more pictures were not tried (images.max_per_product)"
        failure = replace(failure, detail=f"{failure.detail}; {untried}")
    return failure or Decoded(None, Reason.NO_IMAGE, "the product has no image")


def first_usable_of_each(products: Sequence[Pictures | None], size: int, limits: ImagesConfig) -> list[Decoded]:
    """:func:`first_usable` of every product, in order.

    Pictures by reference are fetched by `images.fetch.threads` threads. They decode one picture at a time: a decoded
    picture needs many times the memory of its bytes, and a worker has one core. Those of the catalog's own folder are
    read in turn: a thread for each would cost more than the reading.
    """
    listed = [list(images) if images is not None else [] for images in products]
    remote = "://" in limits.store
    if not any(image.get("bytes") is None and (remote or image.get("uri")) for images in listed for image in images):
        return [first_usable(images, size, limits) for images in listed]
    decoding, fetch = Lock(), picture_sources(limits).fetch
    with ThreadPoolExecutor(limits.fetch.threads, thread_name_prefix="fetch") as threads:
        return list(threads.map(lambda images: first_usable(images, size, limits, fetch, decoding), listed))


def _stored(version: str, limits: ImagesConfig, deadline: Deadline) -> Fetched:
    """The picture that the catalog keeps under ``version``."""
    if version.startswith(TOO_LARGE):
        return Fetched(None, Reason.IMAGE_TOO_LARGE, f"{version.removeprefix(TOO_LARGE)} bytes, not imported")
    return picture_sources(limits).stored(version, deadline)


def decode_image(data: bytes, size: int, limits: ImagesConfig) -> Decoded:
    """Decode one encoded picture (of one of :data:`FORMATS`) to a ``size`` x ``size`` square. Never raises.

    Bytes and the header's width x height are checked against ``limits`` before any pixel is decoded. Of an
    animation the first frame is used, transparency becomes white, EXIF rotation is applied.
    """
    if not data:
        return Decoded(None, Reason.IMAGE_EMPTY, "zero bytes")
    if len(data) > limits.max_bytes:
        return Decoded(None, Reason.IMAGE_TOO_LARGE, f"more than {limits.max_bytes} bytes")
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                return Decoded(None, Reason.IMAGE_TOO_LARGE, f"{width} x {height} exceeds {limits.max_pixels} pixels")
            return Decoded(_to_square(image, size))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        # Pillow's own limit: 179 million pixels, or half of that where warnings are errors. The warning is not
        # silenced here, because decoding runs in threads and warnings.catch_warnings is not thread-safe.
        return Decoded(None, Reason.IMAGE_TOO_LARGE, str(problem))
    except Exception as problem:  # decoders raise almost any exception on malformed bytes
        return Decoded(None, _failure_reason(data, problem), f"{type(problem).__name__}: {problem}"[:200])


@cache
def _known_formats() -> tuple[str, ...]:
    """:data:`FORMATS` without those that this Pillow does not have (AVIF came with 11.3)."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode_fetched(uri: str, fetched: Fetched, size: int, limits: ImagesConfig) -> Decoded:
    """The picture at ``uri``; the detail of a failure names it. Empty: a picture of the catalog's own."""
    if fetched.data is None:
        return Decoded(None, fetched.reason, fetched.detail)
    decoded = decode_image(fetched.data, size, limits)
    if decoded.pixels is not None:
        return decoded
    return Decoded(None, decoded.reason, f"{without_secrets(uri)}: {decoded.detail}" if uri else decoded.detail)


def _to_square(image: Image.Image, size: int) -> np.ndarray:
    scale = size / max(image.size)
    # JPEG can be decoded at 1/2, 1/4 or 1/8 for a fraction of the work; draft keeps at least the requested size.
    image.draft(None, (round(image.width * scale) or 1, round(image.height * scale) or 1))
    upright = _simple_mode(_upright(image))
    width, height = (max(1, round(side * size / max(upright.size))) for side in upright.size)
    fitted = upright.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if fitted.size == (size, size) and fitted.mode == "RGB":
        return np.array(fitted)
    canvas = Image.new("RGB", (size, size), _WHITE)
    corner = ((size - width) // 2, (size - height) // 2)
    canvas.paste(fitted, corner, mask=fitted.getchannel("A") if fitted.mode == "RGBA" else None)
    return np.array(canvas)


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # outside the try: a picture that cannot be decoded must raise
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image  # broken EXIF data does not affect the pixels


def _simple_mode(image: Image.Image) -> Image.Image:
    """The picture as RGB, or as RGBA if it is partly transparent."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # convert("RGB") would clip everything above 255 to white
        grey = np.clip(np.asarray(image), 0, 65535) // _UINT16_STEP
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    mode = "RGBA" if transparent else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _failure_reason(data: bytes, problem: Exception) -> Reason:
    is_complete = _is_complete(data)
    if "truncated" in str(problem).lower() or is_complete is False:
        return Reason.IMAGE_TRUNCATED
    if is_complete is None and isinstance(problem, UnidentifiedImageError):
        return Reason.IMAGE_NOT_AN_IMAGE
    return Reason.IMAGE_UNREADABLE


def _is_complete(data: bytes) -> bool | None:
    """Whether the data has its format's end marker; None if it is not JPEG, PNG, GIF or WebP.

    Decoders report truncated files in many ways, or only as unidentified.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return data.rstrip(b"\0").endswith(b"\xff\xd9")
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-64:]
    if data.startswith(b"GIF8"):
        return data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return None
