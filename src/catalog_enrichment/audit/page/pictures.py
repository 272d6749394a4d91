"""Pictures of items, scaled for a page. They are opened as for scoring, with the same rules and limits."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock, Semaphore

from PIL import Image

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import first_usable
from catalog_enrichment.inputs.square import Square

SIZE = 640
"""Pixels of a side: sharp on a phone, and about 40 kB."""
QUALITY = 82
KEPT_BYTES = 64 * 2**20
"""Scaled pictures that are kept in memory."""
AT_ONCE = 2
"""Pictures that are decoded at the same time: one of 50 million pixels needs 150 MB."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, or why there is none: exactly one of ``data`` and ``reason`` is empty."""

    data: bytes
    reason: str = ""


class Pictures:
    """Pictures by (uri, version) of the products table. For several threads."""

    def __init__(self, limits: ImagesConfig) -> None:
        """``limits``: with absolute folders (:meth:`Config.pictures`)."""
        self.limits = limits
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0
        self._lock, self._decoding = Lock(), Semaphore(AT_ONCE)

    def get(self, uri: str, version: str) -> Picture:
        """The picture in a white square of :data:`SIZE`. Never raises; a failure is tried again the next time."""
        key = (uri, version)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return Picture(self._kept[key])
        decoded = first_usable(
            [{"bytes": None, "uri": uri, "version": version}], Square(SIZE), self.limits, decoding=self._decoding
        )
        if decoded.pixels is None:
            return Picture(b"", str(decoded.reason.value if decoded.reason else "no_image"))
        sink = io.BytesIO()
        Image.fromarray(decoded.pixels).save(sink, format="JPEG", quality=QUALITY, optimize=True)
        self._keep(key, sink.getvalue())
        return Picture(sink.getvalue())

    def _keep(self, key: tuple[str, str], data: bytes) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = data
                self._bytes += len(data)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
