"""Memory of the scoring's Python workers over many products, with pictures of 50 KB and 5 MB mixed.

    python tests/benchmarks/inference_memory.py                         (50,000 products, about 10 minutes on 2 cores)
    python tests/benchmarks/inference_memory.py --products 500          (a try)

The model version of `make bench`, in the session that the jobs start, on the fastest compute type. A tenth of the
pictures is of 5 MB (18 million pixels), the others of 50 KB; they are files that the products refer to. Each worker is
sampled twice per second: resident memory, where a page that workers share counts in equal parts (PSS). The last line is
one JSON object: the largest memory of a worker in each tenth of the time, in MiB, and the largest of all.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from benchmark import arguments, called, memory_mib, print_json
from inference_job import Job
from inference_spark import Ours
from inference_version import register_version
from inference_worlds import read_products
from PIL import Image

SMALL, LARGE = (800, 600), (5000, 3600)
"""Width and height, pixels."""
LARGE_EVERY = 10
"""Every tenth product has a large picture."""
FILES = 10
"""Different pictures of each size."""


class Workers:
    """Samples the memory of the Python workers below this process, twice per second."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        """(seconds since the start, MiB of the largest worker)."""
        self._started, self._stop = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def tenths(self) -> list[int]:
        """Stop, and return the memory of the largest worker in every tenth of the time, MiB."""
        self._stop.set()
        self._thread.join()
        last = self.samples[-1][0] + 1e-9
        peaks = [0.0] * 10
        for seconds, mib in self.samples:
            tenth = int(10 * seconds / last)
            peaks[tenth] = max(peaks[tenth], mib)
        return list(map(round, peaks))

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            found = [memory_mib(worker, proportional=True) for worker in called(os.getpid(), "pyspark.daemon")]
            self.samples.append((time.monotonic() - self._started, max(found, default=0.0)))


def write_pictures(folder: Path) -> None:
    """Write FILES pictures of each size: `small-N.jpg` of about 50 KB, `large-N.jpg` of about 5 MB."""
    folder.mkdir()
    for name, (width, height), quality, grain in (("small", SMALL, 80, 6), ("large", LARGE, 90, 12)):
        for number in range(FILES):
            draw = np.random.default_rng(number)
            coarse = draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
            noisy = smooth + draw.normal(0, grain, (height, width, 1))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{name}-{number}.jpg", quality=quality)


def measure(root: Path, products: int) -> dict[str, object]:
    from pyspark.sql import functions as F

    from catalog_enrichment.config.images import FetchConfig, ImagesConfig
    from catalog_enrichment.config.schema import EnrichConfig
    from catalog_enrichment.inference import udf

    pictures = root / "pictures"
    write_pictures(pictures)
    version = register_version(root, read_products(None, 256), workers=2)
    ours = Ours(Job(contender="ours", version=version, workers=2))
    spark = ours.spark
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", EnrichConfig().batch_rows)
    size = F.when(F.col("id") % LARGE_EVERY == 0, "large").otherwise("small")
    uri = F.concat(F.lit(f"{pictures}/"), size, F.lit("-"), F.col("id") % FILES, F.lit(".jpg"))
    none = F.lit(None)
    image = F.struct(none.cast("binary").alias("bytes"), uri.alias("uri"), none.cast("string").alias("version"))
    listed = spark.range(0, products, numPartitions=8).select(
        F.concat(F.lit("navy shirt number "), "id").alias("title"),
        F.repeat(F.lit("soft cotton "), (F.col("id") % 12).cast("int")).alias("description"),
        F.array(image).alias("images"),
        F.col("id").cast("string").alias("content_hash"),
    )
    limits = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(pictures),)))
    workers, started = Workers(), time.monotonic()
    scored = udf.scored(listed, ours.shipped, limits)
    counts = scored.groupBy("error", "image_reason").count().collect()
    tenths = workers.tenths()
    seconds = time.monotonic() - started
    ours.close()
    if [row["count"] for row in counts if row["error"] is None and row["image_reason"] is None] != [products]:
        raise RuntimeError(f"not every product was scored with its picture: {counts}")
    sizes = {name: round((pictures / f"{name}-0.jpg").stat().st_size / 1e6, 2) for name in ("small", "large")}
    return {
        "products": products, "picture_mb": sizes, "seconds": round(seconds, 1), "compute_type": ours.path,
        "mib_by_tenth": tenths, "peak_worker_mib": max(tenths),
    }  # fmt: skip


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--products", type=int, default=50_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        print_json(measure(Path(folder), args.products))
    return 0


if __name__ == "__main__":
    sys.exit(main())
