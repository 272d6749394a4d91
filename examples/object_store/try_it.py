"""A catalog in an object store, on this machine: an S3 server, an import into it, and what is there afterwards.

    python examples/object_store/try_it.py

Needs moto (`pip install 'moto[server]'`; it is a development dependency), which keeps the objects in memory. With a
store of your own, set `catalog.path` and `catalog.storage` as below, and the credentials in the environment.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

from moto.server import ThreadedMotoServer

from catalog_enrichment import cli
from catalog_enrichment.catalog.object_storage import storage_of
from catalog_enrichment.config.load import load_config

CONFIG = Path(__file__).parents[1] / "minimal" / "config.toml"


def main() -> int:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/catalogs", method="PUT"))
    os.environ.update(AWS_ACCESS_KEY_ID="any-key-will-do", AWS_SECRET_ACCESS_KEY="any-secret-will-do")
    settings = [
        'catalog.path="s3://catalogs/minimal"',
        f"catalog.storage={{aws_endpoint = {json.dumps(endpoint)}, aws_region = 'us-east-1'}}",
    ]
    arguments = ["--config", str(CONFIG), *(word for setting in settings for word in ("--set", setting))]
    try:
        code = cli.import_products(arguments) or cli.list_runs(arguments)
        for file in storage_of(load_config(str(CONFIG), settings)).files():
            print(f"{file.size:>8} bytes  {file.path}", file=sys.stderr)
    finally:
        server.stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
