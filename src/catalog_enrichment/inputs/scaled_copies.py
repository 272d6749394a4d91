"""Scaled copies of pictures: a picture is fetched and decoded in full once, and everything reads the small copy.

A copy is a JPEG whose longest side is between `images.scaled_side` and twice that, about 25 kB for a photograph. A
small picture is its own copy. Scores come from the copy also where it was made this moment: the first scoring and
every later one see the same pixels. The copies are in the folder `scaled` of `images.store`, under a hash of the
picture's URI and version and of the settings. A file has its name when it is complete, so that writers need no lock;
it ends with a SHA-256 of its content, and a damaged copy counts as missing and is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from catalog_enrichment.catalog.storage import FolderStorage, Storage, Stored
from catalog_enrichment.config.images import ImagesConfig, StoredImagesConfig
from catalog_enrichment.inputs.square import on_white, simple_mode, upright
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.web.limits import Deadline

FOLDER = "scaled"
"""The folder of the copies in `images.store`."""
QUALITY = 95
"""JPEG's quality of a copy, without chroma subsampling."""
SMALL_BYTES = 200_000
"""A picture of a small format with at most so many bytes is its own copy."""
_FORMAT = 1
"""Raise it where copies change: the earlier ones are not read any more, and maintain_catalog removes them."""
_LENGTH = struct.Struct(">I")
_HASH_BYTES = 32
_FILE = re.compile(r"([0-9a-f]{2})([0-9a-f]{2})[0-9a-f]{60}(\.[0-9a-f-]{36})?")
_LOG = logging.getLogger(__name__)

Validators = tuple[str, str]
"""The ETag and Last-Modified that a web server sent with a picture; "" for a header that it did not send."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A scaled copy as it is kept."""

    data: bytes
    """The encoded picture."""
    validators: Validators = ("", "")


def is_small(size: tuple[int, int], length: int, side: int) -> bool:
    """Return whether a picture of this width and height, in ``length`` bytes, is its own copy."""
    return max(size) < 2 * side and length <= SMALL_BYTES


def scaled_copy(image: Image.Image, side: int) -> bytes:
    """Return a picture just opened as JPEG, upright, on white, its longest side at least ``side`` and below twice that.

    It is shrunk by a whole factor, JPEG by the decoder itself; a smaller picture keeps its size. Raises almost any
    exception for malformed data.
    """
    scale = side / max(image.size)
    image.draft(None, (round(image.width * scale) or 1, round(image.height * scale) or 1))
    picture = on_white(simple_mode(upright(image)))
    if (factor := max(picture.size) // side) > 1:
        picture = picture.reduce(factor)
    sink = io.BytesIO()
    picture.save(sink, format="JPEG", quality=QUALITY, subsampling=0, exif=b"", icc_profile=None, comment=b"")
    return sink.getvalue()


class ScaledCopies:
    """The copies that are kept in ``storage``, made with the settings of ``images``; for several threads."""

    def __init__(self, storage: Storage, images: ImagesConfig) -> None:
        self.storage = storage
        self.settings = f"{images.copy_side} {QUALITY} {_FORMAT} {images.max_bytes} {images.max_pixels}"
        self._seconds = images.fetch.seconds
        self._refused = False

    @property
    def is_local(self) -> bool:
        """Return whether the copies are files of a folder."""
        return self.storage.folder is not None

    def key(self, uri: str | None, version: str | None) -> str:
        """Return the name of the copy of the picture with this URI and version."""
        return hashlib.sha256("\0".join([uri or "", version or "", self.settings]).encode(errors="replace")).hexdigest()

    def path(self, key: str) -> str:
        """Return the path of a copy in the storage."""
        return f"{key[:2]}/{key[2:4]}/{key}"

    def has(self, key: str) -> bool:
        """Return whether a copy is there, damaged or not."""
        return self.storage.size(self.path(key)) is not None

    def get(self, key: str, of_product: Deadline | None = None) -> Copy | None:
        """Return a copy; None where it is missing, damaged or cannot be read. Never raises."""
        try:
            if self.is_local:
                return _opened(self.storage.read(self.path(key)))
            in_time = of_product if of_product and of_product.remaining < self._seconds else Deadline(self._seconds)
            return _opened(in_time.call(lambda: self.storage.read(self.path(key))))
        except Exception:  # a copy is never needed: the picture itself is read instead
            return None

    def put(self, key: str, copy: Copy) -> None:
        """Keep a copy. Never raises: without it the picture is fetched again; the first failure is logged."""
        try:
            if (folder := self.storage.folder) is None:
                self.storage.put(self.path(key), _sealed(copy))
            else:
                _put_file(folder / self.path(key), _sealed(copy))
        except Exception as problem:  # a full disk, a folder without permission, an object store's own exceptions
            if not self._refused:
                _LOG.warning("no scaled copies can be kept in %s: %s", self.storage.uri, type(problem).__name__)
            self._refused = True

    def files(self) -> Iterator[Stored]:
        """Yield the files that :meth:`put` wrote; a name is a copy's key, or longer if a write was cut off."""
        for file in self.storage.files():
            found = _FILE.fullmatch(file.name)
            if found and file.path == f"{found[1]}/{found[2]}/{file.name}":
                yield file


@cache
def scaled_copies(images: ImagesConfig) -> ScaledCopies | None:
    """Return the copies of ``images``; None where none are kept, or the config names no store."""
    if images.copy_side is None or not images.store:
        return None
    return copies_of(images)


def copies_of(images: ImagesConfig) -> ScaledCopies:
    """Return the place of the copies in `images.store`, whether copies are kept now or not."""
    if isinstance(images, StoredImagesConfig) and "://" in images.store:
        return ScaledCopies(StoredPictures.of(images).storage.below(FOLDER), images)
    return ScaledCopies(FolderStorage(Path(images.store) / FOLDER), images)


def _sealed(copy: Copy) -> bytes:
    """Return the file of a copy: the JPEG, which ends itself, the validators, their length, the hash of all that."""
    validators = json.dumps(copy.validators).encode()
    content = copy.data + validators + _LENGTH.pack(len(validators))
    return content + hashlib.sha256(content).digest()


def _opened(file: bytes) -> Copy | None:
    """Return the copy in a file; None if it is damaged."""
    content, digest = file[:-_HASH_BYTES], file[-_HASH_BYTES:]
    if len(content) < _LENGTH.size or hashlib.sha256(content).digest() != digest:
        return None
    [length] = _LENGTH.unpack(content[-_LENGTH.size :])
    end = len(content) - _LENGTH.size
    etag, modified = json.loads(content[end - length : end])
    return Copy(content[: end - length], (etag, modified))


def _put_file(target: Path, content: bytes) -> None:
    """Write a file under another name first. It is not synced: a copy that a power failure damages is made again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{uuid.uuid4()}")
    scratch.write_bytes(content)
    scratch.replace(target)
