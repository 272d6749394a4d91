"""All pictures of one product have one time limit, whichever hosts they are on."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_enrichment.config.fetch import FetchConfig
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import first_usable
from catalog_enrichment.inputs.picture_sources import PictureSources
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.records import Reason

from ..sample_catalog import jpeg
from .picture_server import picture_server, silence

NAMES = 15


def silent(port: int) -> list[dict[str, str | None]]:
    """Pictures on so many hosts, as of a name server that knows every name below one."""
    uris = [f"http://cdn-{number}.test:{port}/silent.jpg" for number in range(NAMES)]
    return [{"bytes": None, "uri": uri, "version": uri} for uri in uris]


@pytest.mark.parametrize(("product_seconds", "fewest", "most"), [(0.12, 1, 6), (60.0, NAMES, NAMES)])
def test_silent_hosts_of_many_names_cost_one_time_limit(
    product_seconds: float, fewest: int, most: int, tmp_path: Path
) -> None:
    fetch = FetchConfig(
        private_hosts=("127.0.0.1",), seconds=0.03, product_seconds=product_seconds, retries=0,
        allowed_folders=(str(tmp_path),),
    )  # fmt: skip
    limits = ImagesConfig(fetch=fetch)
    with picture_server() as server:
        server.answers["/silent.jpg"] = silence
        pictures = silent(server.port)
        sources = PictureSources(limits, lambda *_: ["127.0.0.1"])
        decoded = first_usable(pictures, Square(8), limits, sources.fetch)
        assert fewest <= server.connections <= most
        assert decoded.reason is Reason.IMAGE_UNREACHABLE
        (tmp_path / "last.jpg").write_bytes(jpeg((1, 2, 3)))  # a local file costs no time, and is tried
        last = {"bytes": None, "uri": str(tmp_path / "last.jpg"), "version": ""}
        assert first_usable([*pictures, last], Square(8), limits, sources.fetch).pixels is not None
