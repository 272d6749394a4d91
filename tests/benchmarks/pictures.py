"""Opens large pictures behind a web server: a plain loop, and ours for the first and for the second time.

    python tests/benchmarks/pictures.py --products 1600 [--data FILE.parquet] [--latency 0.05]

The pictures have shorter sides of 1,000 to 1,600 px and are served on the loopback address by a process of its own,
each answer after ``--latency`` seconds. A row is the time from URIs to squares of 224 px, without a model's forward
pass:

    plain_full     urllib, Image.open().convert().resize(), a thread pool, as a user would write it
    first          ours; no copy is there yet
    second         ours, in new processes, as for a new model version: the copies are there
    without_copies ours, images.keep_scaled = false

Every row has as many processes (``--workers``) and fetching threads. It prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from inference_worlds import enlarged, read_products
from PIL import Image

from catalog_enrichment.config.images import FetchConfig, StoredImagesConfig
from catalog_enrichment.inputs.images import first_usable_of_each
from catalog_enrichment.inputs.square import Square

SIDE, BATCH = 224, 64
Work = Callable[[Sequence[str]], int]
"""URIs of pictures -> the pictures that were opened."""


def serve(folder: Path, latency: float, channel: Connection) -> None:
    """Serve files of ``folder``; a message of ``channel`` is answered with requests and bytes since the last."""
    lock, counts = threading.Lock(), [0, 0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(latency)
            data = (folder / Path(self.path).name).read_bytes()
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


def plain_full(threads: int, uris: Sequence[str]) -> int:
    def opened(uri: str) -> np.ndarray:
        with urllib.request.urlopen(uri) as answer:
            data = answer.read()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE)))

    with ThreadPoolExecutor(threads) as pool:
        return sum(1 for _ in pool.map(opened, uris))


def ours(limits: StoredImagesConfig, uris: Sequence[str]) -> int:
    usable = 0
    for start in range(0, len(uris), BATCH):
        images = [[{"bytes": None, "uri": uri, "version": uri}] for uri in uris[start : start + BATCH]]
        usable += sum(found.pixels is not None for found in first_usable_of_each(images, Square(SIDE), limits))
    return usable


def timed(work: Work, uris: Sequence[str], workers: int) -> float:
    """Return the seconds of ``work`` in fresh processes, a share of the pictures for each."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(work, [[]] * workers))  # the imports are not timed
        start = time.monotonic()
        opened = sum(pool.map(work, [uris[first::workers] for first in range(workers)]))
        seconds = time.monotonic() - start
    if opened != len(uris):
        raise SystemExit(f"{len(uris) - opened} of {len(uris)} pictures were not opened")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="parquet of products; without: made products")
    parser.add_argument("--products", type=int, default=1600)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=FetchConfig().threads, help="images.fetch.threads, per process")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "served"
        folder.mkdir()
        names = []
        for number, product in enumerate(read_products(args.data, args.products)):
            names.append(f"{number}.jpg")
            (folder / names[-1]).write_bytes(enlarged(product.image, number))
        here, there = get_context("spawn").Pipe()
        server = get_context("spawn").Process(target=serve, args=(folder, args.latency, there), daemon=True)
        server.start()
        uris = [f"http://127.0.0.1:{here.recv()}/{names[0]}"]
        uris = [uris[0].rpartition("/")[0] + f"/{name}" for name in names]
        fetch = FetchConfig(private_hosts=("127.0.0.1",), threads=args.threads)
        limits = StoredImagesConfig(store=str(Path(scratch) / "store"), fetch=fetch)
        contenders: dict[str, Work] = {
            "plain_full": partial(plain_full, args.threads),
            "first": partial(ours, limits),
            "second": partial(ours, limits),
            "without_copies": partial(ours, replace(limits, keep_scaled=False)),
        }
        rows: dict[str, dict[str, float]] = {}
        for name, work in contenders.items():
            seconds = timed(work, uris, args.workers)
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
