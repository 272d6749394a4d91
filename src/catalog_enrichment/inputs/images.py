"""A product's pictures to a square for the model. A bad picture gives a Reason, never an exception."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.errors import TemporaryFailure
from catalog_enrichment.inputs.picture_sources import MISSING, Fetched, picture_sources, without_secrets
from catalog_enrichment.inputs.scaled_copies import Copy, is_small, scaled_copies, scaled_copy
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.reasons import TRANSIENT, Reason
from catalog_enrichment.web.limits import Deadline

TOO_LARGE = "too_large:"
"""The prefix of the version of a picture whose bytes were not imported, because of their number; the number follows."""

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")
"""The formats, by Pillow's names, that are decoded. Pillow gives others to programs: it runs Ghostscript on EPS."""

MIN_TRIED = 20
"""With fewer products with pictures, a share of unusable pictures says little: it is a warning at most."""

_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")

_HINTS = {
    Reason.IMAGE_MISSING: "Is source.image_folder the right folder, and is it there?",
    Reason.IMAGE_NOT_ALLOWED: "images.fetch says from where pictures may be fetched.",
    Reason.IMAGE_UNREACHABLE: "Do network, DNS, certificates and the store's client work on this machine?",
    Reason.IMAGE_TOO_LARGE: "images.max_bytes and images.max_pixels are the limits.",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A usable picture, or the reason why there is none: exactly one of ``pixels`` and ``reason`` is None."""

    pixels: np.ndarray | None
    """uint8 (S, S, 3), RGB; S is the square's side."""
    reason: Reason | None = None
    detail: str = ""
    data: bytes | None = None
    """The usable picture as it is encoded, which is its scaled copy where copies are kept; None where it was not asked
    for."""


Pictures = Iterable[Mapping[str, Any]]
"""A product's ordered ``{bytes, uri, version}``."""
Fetch = Callable[[str, Deadline], Fetched]
"""(URI, the deadline of the product's pictures) -> the picture."""


def first_usable(
    images: Pictures | None,
    square: Square,
    limits: ImagesConfig,
    fetch: Fetch | None = None,
    decoding: AbstractContextManager[Any] | None = None,
    keep_bytes: bool = False,
) -> Decoded:
    """Return the first picture of a product that decodes. Never raises.

    If no picture decodes, the reason is that of the first picture that could not be reached, else of the first picture,
    which is the merchant's main picture. At most `images.max_per_product` are tried, and none is fetched after
    `images.fetch.product_seconds`. A picture whose scaled copy is kept is not fetched. ``fetch`` opens references, by
    default under ``limits``; ``decoding`` is held while a fetched picture is decoded; ``keep_bytes`` gives the encoded
    picture, too.
    """
    failure: Decoded | None = None
    listed, deadline = list(images) if images is not None else [], Deadline(limits.fetch.product_seconds)
    for image in listed[: limits.max_per_product]:
        if image.get("bytes") is not None:
            decoded = decode_image(bytes(image["bytes"]), square, limits)
        else:
            reference = str(image.get("uri") or ""), str(image.get("version") or "")
            decoded = _referenced(*reference, square, limits, deadline, fetch, decoding or nullcontext())
        if decoded.pixels is not None:
            return decoded if keep_bytes else replace(decoded, data=None)
        if failure is None or (decoded.reason in TRANSIENT and failure.reason not in TRANSIENT):
            failure = decoded
    if failure and len(listed) > limits.max_per_product:
        untried = f"{len(listed) - limits.max_per_product} more pictures were not tried (images.max_per_product)"
        failure = replace(failure, detail=f"{failure.detail}; {untried}")
    return failure or Decoded(None, Reason.NO_IMAGE, "the product has no image")


def first_usable_of_each(
    products: Sequence[Pictures | None], square: Square, limits: ImagesConfig, keep_bytes: bool = False
) -> list[Decoded]:
    """Return :func:`first_usable` of every product, in order.

    Pictures by reference are fetched by `images.fetch.threads` threads. They decode a single picture at a time: a
    decoded picture needs many times the memory of its bytes, and a worker has one core. Pictures of the catalog's own
    folder are read in turn: a thread for each would cost more than the reading.
    """
    listed = [list(images) if images is not None else [] for images in products]
    found: dict[int, Decoded] = {}
    decoding, fetch = Lock(), picture_sources(limits).fetch

    def waited_for(position: int) -> None:
        found[position] = first_usable(listed[position], square, limits, fetch, decoding, keep_bytes)

    waiting = [position for position, images in enumerate(listed) if not _is_at_hand(images, limits)]
    with ThreadPoolExecutor(limits.fetch.threads, thread_name_prefix="fetch") if waiting else nullcontext() as threads:
        submitted = [threads.submit(waited_for, position) for position in waiting] if threads else []
        for position in sorted(set(range(len(listed))).difference(waiting)):
            with decoding:
                found[position] = first_usable(listed[position], square, limits, keep_bytes=keep_bytes)
        for task in submitted:
            task.result()
    return [found[position] for position in range(len(listed))]


def _is_at_hand(images: Sequence[Mapping[str, Any]], limits: ImagesConfig) -> bool:
    """Return whether a product's pictures are opened without a wait: they are bytes, files of the catalog's own folder,
    or the first has a scaled copy in it."""
    remote = "://" in limits.store
    if not any(image.get("bytes") is None and (remote or image.get("uri")) for image in images):
        return True
    copies = scaled_copies(limits)
    if copies is None or not copies.is_local or limits.revalidate or images[0].get("bytes") is not None:
        return False
    return copies.has(copies.key(images[0].get("uri"), images[0].get("version")))


def _referenced(
    uri: str,
    version: str,
    square: Square,
    limits: ImagesConfig,
    deadline: Deadline,
    fetch: Fetch | None,
    decoding: AbstractContextManager[Any],
) -> Decoded:
    """Return a picture by reference from its scaled copy, or from its source, whose copy is kept then."""
    copies = scaled_copies(limits) if version not in ("", MISSING) and not version.startswith(TOO_LARGE) else None
    key = copies.key(uri, version) if copies else ""
    copy = copies.get(key, deadline) if copies else None
    asks = limits.revalidate and uri.lower().startswith(("http://", "https://"))
    if copy and not asks:
        with decoding:
            decoded = _decoded(copy.data, square, limits, side=None)
        if decoded.pixels is not None:
            return decoded
    if uri:
        known = copy.validators if copy else ("", "")
        sources = picture_sources(limits)
        fetched = sources.fetch(uri, deadline, known) if any(known) else (fetch or sources.fetch)(uri, deadline)
    else:
        fetched = _stored(version, limits, deadline)
    if copy and (fetched.is_unchanged or fetched.reason in TRANSIENT):
        with decoding:
            return _decoded(copy.data, square, limits, side=None)
    with decoding:
        decoded = _decode_fetched(uri, fetched, square, limits)
    # the bytes of a small picture of the catalog's own folder, or of another folder, are read there as fast
    is_local = not uri or not _SCHEME.match(uri)
    as_fast = is_local and copies is not None and copies.is_local and decoded.data is fetched.data
    if copies and decoded.data is not None and not as_fast and _is_version(uri, version, limits):
        copies.put(key, Copy(decoded.data, fetched.validators))
    return decoded


def _is_version(uri: str, version: str, limits: ImagesConfig) -> bool:
    """Return False for a local file that was replaced since the import gave it this version, or cannot be looked at.

    A picture elsewhere has no version but its URI.
    """
    try:
        now = picture_sources(limits).version(uri) if uri else uri
    except TemporaryFailure:
        return False
    return now in (uri, version)


def _stored(version: str, limits: ImagesConfig, deadline: Deadline) -> Fetched:
    """Return the picture that the catalog keeps under ``version``."""
    if version.startswith(TOO_LARGE):
        return Fetched(None, Reason.IMAGE_TOO_LARGE, f"{version.removeprefix(TOO_LARGE)} bytes, not imported")
    return picture_sources(limits).stored(version, deadline)


def decode_image(data: bytes, square: Square, limits: ImagesConfig) -> Decoded:
    """Decode an encoded picture of the :data:`FORMATS`, fitted into ``square``. Never raises.

    Bytes and the header's width x height are checked against ``limits`` before any pixel is decoded. The first frame of
    an animation is used, transparency becomes white, EXIF rotation is applied. Where scaled copies are kept, the pixels
    are those of the copy, which is the result's ``data``.
    """
    if not data:
        return Decoded(None, Reason.IMAGE_EMPTY, "zero bytes")
    if len(data) > limits.max_bytes:
        return Decoded(None, Reason.IMAGE_TOO_LARGE, f"more than {limits.max_bytes} bytes")
    return _decoded(data, square, limits, limits.copy_side)


def _decoded(data: bytes, square: Square, limits: ImagesConfig, side: int | None) -> Decoded:
    """Decode a picture, by a scaled copy of this ``side``; None: without, as for a picture that is a copy."""
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                return Decoded(None, Reason.IMAGE_TOO_LARGE, f"{width} x {height} exceeds {limits.max_pixels} pixels")
            if side is not None and not is_small(image.size, len(data), side):
                data = scaled_copy(image, side)
                with Image.open(io.BytesIO(data)) as copy:
                    return Decoded(square.fit(copy), data=data)
            return Decoded(square.fit(image), data=data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        # Pillow's own limit: 179 million pixels, or half of that where warnings are errors. The warning is not
        # silenced here, because decoding runs in threads and warnings.catch_warnings is not thread-safe.
        return Decoded(None, Reason.IMAGE_TOO_LARGE, str(problem))
    except Exception as problem:  # decoders raise almost any exception on malformed bytes
        return Decoded(None, _failure_reason(data, problem), f"{type(problem).__name__}: {problem}"[:200])


@cache
def _known_formats() -> tuple[str, ...]:
    """Return the :data:`FORMATS` that this Pillow has (AVIF came with 11.3)."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode_fetched(uri: str, fetched: Fetched, square: Square, limits: ImagesConfig) -> Decoded:
    """Decode the picture at ``uri``, which the detail of a failure names; "" for a picture that the catalog keeps."""
    if fetched.data is None:
        return Decoded(None, fetched.reason, fetched.detail)
    decoded = decode_image(fetched.data, square, limits)
    if decoded.pixels is not None:
        return decoded
    return Decoded(None, decoded.reason, f"{without_secrets(uri)}: {decoded.detail}" if uri else decoded.detail)


def _failure_reason(data: bytes, problem: Exception) -> Reason:
    is_complete = _is_complete(data)
    if "truncated" in str(problem).lower() or is_complete is False:
        return Reason.IMAGE_TRUNCATED
    if is_complete is None and isinstance(problem, UnidentifiedImageError):
        return Reason.IMAGE_NOT_AN_IMAGE
    return Reason.IMAGE_UNREADABLE


def _is_complete(data: bytes) -> bool | None:
    """Return whether the data has its format's end marker; None if it is not JPEG, PNG, GIF or WebP.

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


@dataclass(slots=True)
class UnusablePictures:
    """Counts of products whose pictures are all unusable, among the products that have pictures."""

    tried: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    """Reason -> products without a usable picture."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> detail of the first of these products."""

    def add(self, outcomes: Iterable[tuple[str | None, str]]) -> None:
        """Count products by (reason or None, detail); products without any picture (NO_IMAGE) do not count."""
        for reason, detail in outcomes:
            if reason == Reason.NO_IMAGE:
                continue
            self.tried += 1
            if reason is not None:
                self.by_reason[str(reason)] += 1
                self.examples.setdefault(str(reason), detail)

    @property
    def unusable(self) -> int:
        return self.by_reason.total()

    def too_many(self, max_unusable: float) -> bool:
        """Return whether more than this share of at least MIN_TRIED products have no usable picture."""
        return self.tried >= MIN_TRIED and self.unusable > max_unusable * self.tried

    def sentence(self) -> str:
        """Return how many products these are, the most frequent reason, and an example; "" if all are usable."""
        if not self.by_reason:
            return ""
        [(reason, count)] = self.by_reason.most_common(1)
        hint = _HINTS.get(Reason(reason), "")
        return (
            f"{self.unusable:,} of {self.tried:,} products with pictures have no usable picture, most often {reason} "
            f"({count:,}), for example {self.examples[reason]}. {hint}"
        ).rstrip()
