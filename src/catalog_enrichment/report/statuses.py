"""The status of certificates (provisional, confirmed) on pages that were written before an audit confirmed them.

Each page marks the place where it says so (templates/status.html.j2); :func:`refresh` writes what holds now there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import review_tables
from catalog_enrichment.web import pages

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

CONFIRMED = "confirmed by an audit"

_MARK = re.compile(rb'(<span data-certificate="([0-9a-f]+)" data-issued="(\w+)">)[^<]*(</span>)')


def status(certificate_id: str, issued: str, confirmed: Collection[str]) -> str:
    """Return the status of a certificate in words; ``issued``: the status with which it was issued; ``confirmed``: ids
    of the certificates that an audit has confirmed."""
    return CONFIRMED if certificate_id in confirmed else issued


def refresh(catalog: Catalog, folder: Path) -> list[Path]:
    """Write what audits have confirmed by now into the pages in ``folder``; return the pages that changed."""
    confirmed, changed = review_tables.confirmed(catalog), []

    def now(mark: re.Match[bytes]) -> bytes:
        opening, certificate_id, issued, closing = mark.groups()
        return opening + status(certificate_id.decode(), issued.decode(), confirmed).encode() + closing

    for path in sorted(folder.glob("*.html")):
        page = path.read_bytes()
        new = _MARK.sub(now, page)
        if new != page:
            changed.append(pages.write(path, new))
    return changed
