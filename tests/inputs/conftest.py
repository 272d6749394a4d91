"""A web server with a picture, and sources that may connect to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from catalog_enrichment.config.images import FetchConfig, ImagesConfig
from catalog_enrichment.inputs import picture_sources
from catalog_enrichment.inputs.picture_sources import PictureSources
from catalog_enrichment.web.hosts import Resolve, system_resolver

from .picture_server import PictureServer, answer, picture_server

PICTURE = b"an encoded picture"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_sources, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        running.answers["/good.jpg"] = answer("200 OK", PICTURE)
        yield running


def resolves_to(*addresses: str, asked: list[str] | None = None) -> Resolve:
    """A resolver that gives the same addresses for every name."""

    def resolve(host: str, port: int) -> list[str]:
        if asked is not None:
            asked.append(host)
        return list(addresses)

    return resolve


def web_sources(resolve: Resolve = system_resolver, max_bytes: int = 1000, **config: Any) -> PictureSources:
    fetch = FetchConfig(**{"private_hosts": ("127.0.0.1",), "seconds": 0.4, "connect_seconds": 0.2} | config)
    return PictureSources(ImagesConfig(max_bytes=max_bytes, fetch=fetch), resolve)
