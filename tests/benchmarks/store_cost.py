"""What an object store costs against a folder: the same chain of jobs on both, one after the other.

    python -m tests.benchmarks.store_cost            (from the repository's folder; 5 minutes on 2 quiet cores)

Jobs of 60 products: their time is that of opening, reading, committing and of Spark's small tasks, which is where the
two differ. The server is on this machine, so what is measured is the number of requests and the copies, not a network.
The table comes first, the last line is one JSON object: seconds per job.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from ..object_store import CREDENTIALS, ObjectStoreServer
from .fault_processes import environment


def main() -> int:
    os.environ.update(environment(**CREDENTIALS))  # before any library is imported that reads it
    from . import fault_catalog

    with tempfile.TemporaryDirectory(prefix="store-cost-") as scratch:
        server = ObjectStoreServer(Path(scratch) / "server")
        server.start()
        try:
            fault_catalog.build(Path(scratch) / "warm")  # the session and the model's libraries
            folder = fault_catalog.build(Path(scratch) / "folder")
            store = fault_catalog.build(Path(scratch) / "store", server)
        finally:
            server.kill()
    rows = {one.name: (one.seconds, other.seconds) for one, other in zip(folder.steps, store.steps, strict=True)}
    rows["all"] = (sum(one for one, _ in rows.values()), sum(other for _, other in rows.values()))
    print("| job | folder, s | object store, s | ratio |\n|---|---|---|---|")
    for name, (one, other) in rows.items():
        print(f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |")
    print(json.dumps({name: {"folder": round(one, 2), "s3": round(other, 2)} for name, (one, other) in rows.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
