"""The products that the contenders score, as Parquet files: with the pictures as they are, and enlarged.

`small` has the pictures as they are (generated pictures are JPEGs of 224 px). `large` has them enlarged to 1,000 to
1,600 pixels on the shorter side, with some noise.

Columns: row (0..N-1), title, description, image (encoded), picture (its SHA-256, by which a catalog keeps it). Every
product has a title and a picture that can be decoded.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from catalog_enrichment.inputs.stored_pictures import StoredPictures

WORLDS = ("small", "large")
GENERATED_SIDE = 224
"""Side of a generated picture, pixels."""
LARGE_SIDES = (1000, 1600)
"""The shorter side of a large picture, pixels."""
GRAIN = 3.0
"""Standard deviation of the noise of large pictures, of 255; without it the enlarged files are too small."""
SEED = 11


@dataclass(frozen=True)
class Product:
    title: str
    description: str
    image: bytes


def read_products(data: Path | None, count: int) -> list[Product]:
    """``count`` products of a Parquet file with the columns of `config:compare_fashion.toml`, spread over the file, or
    of the generated marketplace. If there are fewer, they are repeated. Raises ValueError if there is none."""
    available = list(_generated(count) if data is None else _listed(data, count))
    if not available:
        raise ValueError(f"{data or 'the generated marketplace'} has no product with a title and a picture")
    return list(islice(cycle(available), count))


def write_world(folder: Path, products: Sequence[Product], files: int) -> None:
    """Write ``products`` as Parquet files of nearly the same number of rows; fewer than ``files`` if they are few."""
    folder.mkdir(parents=True)
    rows = np.arange(len(products))
    for number, part in enumerate(np.array_split(rows, min(files, len(products)))):
        columns = {
            "row": pa.array(part, pa.int64()),
            "title": pa.array([products[row].title for row in part], pa.string()),
            "description": pa.array([products[row].description for row in part], pa.string()),
            "image": pa.array([products[row].image for row in part], pa.binary()),
            "picture": pa.array([_version(products[row].image) for row in part], pa.string()),
        }
        pq.write_table(pa.table(columns), folder / f"part-{number:03d}.parquet", compression="none")


def store_pictures(folder: Path, products: Sequence[Product]) -> None:
    """Keep the pictures in ``folder`` as an import does, by content."""
    store = StoredPictures(folder)
    for product in products:
        store.put(_version(product.image), product.image)


def _version(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def with_large_pictures(products: Sequence[Product]) -> list[Product]:
    """The same products with their pictures enlarged, see :func:`enlarged`."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as processes:
        small = (product.image for product in products)
        large = processes.map(enlarged, small, range(len(products)), chunksize=16)
        return [replace(product, image=picture) for product, picture in zip(products, large, strict=True)]


def enlarged(data: bytes, seed: int) -> bytes:
    """The picture as a JPEG whose shorter side has 1,000 to 1,600 pixels, drawn by ``seed``, with some noise."""
    draw = np.random.default_rng([SEED, seed])
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = draw.integers(*LARGE_SIDES) / min(image.size)
    large = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    grain = draw.normal(0, GRAIN, (large.height // 2 + 1, large.width // 2 + 1, 1)).repeat(2, axis=0).repeat(2, axis=1)
    noisy = np.asarray(large) + grain[: large.height, : large.width]
    return _jpeg(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))


def _generated(count: int) -> Iterator[Product]:
    """Listings of the generated marketplace with valid pictures, enlarged to GENERATED_SIDE."""
    from catalog_enrichment.demo import marketplace

    with tempfile.TemporaryDirectory() as room:
        # about 2% of the rows or pictures are broken
        source = marketplace.generate(Path(room) / "feed", count + count // 10 + 20).source
        for line in source.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                data = (source.parent / row["images"][0]).read_bytes()
                picture = Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB")
            except (ValueError, IndexError, OSError):
                continue
            if isinstance(row["title"], str) and row["title"].strip():
                side = (GENERATED_SIDE, GENERATED_SIDE)
                yield Product(row["title"], row["description"], _jpeg(picture.resize(side, Image.Resampling.BICUBIC)))


def _listed(data: Path, count: int) -> Iterator[Product]:
    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.config.load import load_config
    from catalog_enrichment.inputs.images import decode_image
    from catalog_enrichment.inputs.square import Square

    source = load_config("config:compare_fashion.toml").source
    assert source is not None
    names = (source.mapping.title, source.mapping.description, source.mapping.image_bytes)
    listings = pq.read_table(data, columns=[name for name in names if name])
    chosen = np.unique(np.linspace(0, len(listings) - 1, min(2 * count, len(listings))).astype(int))
    for row in listings.take(chosen).to_pylist():
        title, description, image = (row.get(name) for name in names)
        usable = image is not None and decode_image(image, Square(32), ImagesConfig()).pixels is not None
        if usable and title and title.strip():
            yield Product(title, description or "", image)


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()
