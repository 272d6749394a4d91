"""A small API with pages of products, on loopback, to try config.toml on.

    python examples/http_api_source/server.py                        # prints its URL; ends with Ctrl-C
    SHOP_TOKEN=letmein import_products --config examples/http_api_source/config.toml

It wants a token, gives five products per page, and answers every fourth request with "too many requests".
"""

from __future__ import annotations

import argparse
import itertools
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "letmein"
PAGE = 5
COLOURS = ("Red", "Blue", "Black")
PRODUCTS = [
    {"sku": f"B-{number:02d}", "name": f"Shirt number {number}", "colour": COLOURS[number % 3] if number % 4 else None}
    for number in range(1, 23)
]
REQUESTS = itertools.count(1)


class Products(BaseHTTPRequestHandler):
    """GET /products?page=N: {"data": [...], "meta": {"total": 22}}"""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, {"error": "wrong token"})
        elif next(REQUESTS) % 4 == 0:
            self.reply(429, {"error": "too many requests"}, {"Retry-After": "1"})
        else:
            page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
            some = PRODUCTS[(page - 1) * PAGE : page * PAGE]
            self.reply(200, {"data": some, "meta": {"total": len(PRODUCTS)}})

    def reply(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8099, help="default %(default)s; 0: any free one")
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Products)
    print(f"http://127.0.0.1:{server.server_address[1]}/products", flush=True)
    server.serve_forever()
