"""Scores products whose large pictures are behind a web server: a plain loop, and ours for the first and second time.

    python tests/benchmarks/pictures.py --products 20000 [--data FILE.parquet] [--latency 0.05]     (30 minutes)

The pictures have shorter sides of 1,000 to 1,600 px and are served on the loopback address by a process of its own,
each answer after ``--latency`` seconds. ``--different`` of them are made; every product has a URI of its own. A row is
the time from URIs to scores by a loaded model (that of inference_version.py, random weights), one thread per process:

    plain_full     urllib, Image.open().convert().resize(), a thread pool, eager fp32, as a user would write it
    first          ours in the fastest number type of the machine; no copy is there yet
    second         ours, in new processes, as for a new model version: the copies are there
    without_copies ours, images.keep_scaled = false

Every row has as many processes (``--workers``) and fetching threads. It prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from inference_full import FullModel
from inference_version import SPEC, saved_model
from inference_worlds import enlarged, read_products

from catalog_enrichment.config.images import FetchConfig, StoredImagesConfig
from catalog_enrichment.inference.engine import UndecodedBatch, score_batches
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.predictor import Predictor

BATCH = 64
WORDS = tuple(f"word{number}" for number in range(500))
Work = Callable[..., int]
"""URIs of pictures, the model's folder as ``artifact`` -> the products that were scored."""


def serve(folder: Path, different: int, latency: float, channel: Connection) -> None:
    """Serve the ``different`` files of ``folder`` in turn; a message of ``channel`` is answered with the requests and
    bytes since the last."""
    lock, counts = threading.Lock(), [0, 0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(latency)
            data = (folder / f"{int(Path(self.path).stem) % different}.jpg").read_bytes()
            with lock:
                counts[0] += 1
                counts[1] += len(data)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads = 256, True

    server = Server(("127.0.0.1", 0), Handler)
    channel.send(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while channel.recv():
        with lock:
            channel.send(tuple(counts))
            counts[:] = [0, 0]


def plain_full(uris: Sequence[str], artifact: Path, threads: int) -> int:
    """Score one batch after the other, each when its pictures are fetched; the next batch is fetched meanwhile."""
    model = plain_model(artifact)

    def fetched(uri: str) -> bytes:
        with urllib.request.urlopen(uri) as answer:
            return answer.read()

    scored = 0
    with ThreadPoolExecutor(threads) as pool:
        batches = [uris[start : start + BATCH] for start in range(0, len(uris), BATCH)]
        waiting = [[pool.submit(fetched, uri) for uri in batch] for batch in batches[:1]]
        for number, batch in enumerate(batches):
            waiting += [[pool.submit(fetched, uri) for uri in ahead] for ahead in batches[number + 1 : number + 2]]
            pictures = [one.result() for one in waiting.pop(0)]
            titles, descriptions = zip(*map(texts_of, batch), strict=True)
            scored += len(next(iter(model.predict(titles, descriptions, pictures).values())))
    return scored


def ours(uris: Sequence[str], artifact: Path, limits: StoredImagesConfig) -> int:
    predictor = our_model(artifact)

    def batches() -> Iterator[UndecodedBatch]:
        for start in range(0, len(uris), BATCH):
            part = uris[start : start + BATCH]
            titles, descriptions = zip(*map(texts_of, part), strict=True)
            yield UndecodedBatch(titles, descriptions, [[{"bytes": None, "uri": uri, "version": uri}] for uri in part])

    scored = [row for rows in score_batches(predictor, batches(), limits) for row in rows]
    return sum(row.error is None and row.image_reason is None for row in scored)


@cache
def plain_model(artifact: Path) -> FullModel:
    """Load the model once per process, before the clock starts; so does a worker of Spark."""
    return FullModel(artifact)


@cache
def our_model(artifact: Path) -> Predictor:
    return Predictor.load(artifact, "cpu", compute_types.fastest("cpu"))


def texts_of(uri: str) -> tuple[str, str]:
    """Return a product's title and description, of usual lengths, by the number in its picture's URI."""
    number = int(Path(uri).stem)
    words = [WORDS[(number * 7 + step * 3) % len(WORDS)] for step in range(24)]
    return " ".join(words[:6]), " ".join(words[6:])


def timed(work: Work, uris: Sequence[str], artifact: Path, workers: int) -> float:
    """Return the seconds of ``work`` in fresh processes, a share of the pictures for each."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        list(pool.map(partial(work, artifact=artifact), [uris[:BATCH]] * workers))  # imports and the model's start
        start = time.monotonic()
        scored = sum(pool.map(partial(work, artifact=artifact), [uris[first::workers] for first in range(workers)]))
        seconds = time.monotonic() - start
    if scored != len(uris):
        raise SystemExit(f"{len(uris) - scored} of {len(uris)} products were not scored with their picture")
    return seconds


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="parquet of products; without: made products")
    parser.add_argument("--products", type=int, default=20000)
    parser.add_argument("--different", type=int, default=2000, help="pictures that are made")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=FetchConfig().threads, help="images.fetch.threads, per process")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "served"
        folder.mkdir()
        different = min(args.different, args.products)
        products = read_products(args.data, different)
        artifact = saved_model(Path(scratch) / "model", products, SPEC)
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            for number, data in enumerate(pool.map(enlarged, [p.image for p in products], range(different))):
                (folder / f"{number}.jpg").write_bytes(data)
        here, there = get_context("spawn").Pipe()
        given = (folder, different, args.latency, there)
        server = get_context("spawn").Process(target=serve, args=given, daemon=True)
        server.start()
        port = here.recv()
        uris = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(args.products)]
        fetch = FetchConfig(private_hosts=("127.0.0.1",), threads=args.threads)
        limits = StoredImagesConfig(store=str(Path(scratch) / "store"), fetch=fetch)
        contenders: dict[str, Work] = {
            "plain_full": partial(plain_full, threads=args.threads),
            "first": partial(ours, limits=limits),
            "second": partial(ours, limits=limits),
            "without_copies": partial(ours, limits=replace(limits, keep_scaled=False)),
        }
        rows: dict[str, dict[str, float]] = {}
        for name, work in contenders.items():
            seconds = timed(work, uris, artifact, args.workers)
            here.send("counts")
            requests, received = here.recv()
            rows[name] = {"products_per_s": len(uris) / seconds, "requests": requests, "mb_read": received / 1e6}
            rows[name]["ratio"] = rows[name]["products_per_s"] / rows["plain_full"]["products_per_s"]
            print("  ".join([f"{name:<15}", *(f"{key} {value:,.2f}" for key, value in rows[name].items())]), flush=True)
        here.send("")
        server.join(5)
    print(json.dumps({"products": args.products, "workers": args.workers, "threads": args.threads, "rows": rows}))


if __name__ == "__main__":
    main()
