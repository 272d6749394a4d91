"""serve_audit: the page's server, until it is stopped."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment.audit.page.guard import MANAGER_VARIABLE, TOKEN_VARIABLE, Guard, is_loopback
from catalog_enrichment.audit.page.products import ProductReader
from catalog_enrichment.audit.page.site import ScaledPictures, Site
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import follow_dictionary
from catalog_enrichment.errors import ConfigError, TemporaryFailure
from catalog_enrichment.monitoring.stages import Say, to_stderr

DEFAULT_PORT = 8765


@dataclass(frozen=True, kw_only=True, slots=True)
class Listen:
    """The address that the server listens on, and its address for people."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """The port; 0 for any free port."""
    public_url: str = ""


def store_path(config: Config, given: str | None) -> Path:
    """Return the review store's file: ``given``, else `audit.store` of the config."""
    return Path(given).resolve() if given else config.path(config.audit.store)


def guard_of(listen: Listen, environment: Mapping[str, str], say: Say = to_stderr) -> Guard:
    """Return the guard, with the tokens in :data:`TOKEN_VARIABLE` and :data:`MANAGER_VARIABLE`.

    Elsewhere than on loopback a missing token for reviewers is made and printed. Raises ConfigError for a token that is
    too short and a public URL that is none.
    """
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if not token and (not is_loopback(listen.host) or listen.public_url):
        token = secrets.token_urlsafe(24)
        say(f"this server is reached from elsewhere and asks for a token, which is printed only here: {token}")
        say(f"(set {TOKEN_VARIABLE} to choose it)")
    manager_token = environment.get(MANAGER_VARIABLE, "").strip()
    return Guard(host=listen.host, public_url=listen.public_url, token=token, manager_token=manager_token)


def site_of(config: Config, store: ReviewStore, guard: Guard) -> Site:
    """Return the objects that the page's handlers share. None of them starts Spark."""
    catalog = Catalog.of(config)
    dictionary = follow_dictionary(config, catalog).dictionary
    products = ProductReader(catalog, dictionary, config.enrich)
    pictures = ScaledPictures(config.pictures())
    return Site(store=store, dictionary=dictionary, pictures=pictures, products=products, guard=guard)


def serve_audit(config: Config, path: Path, listen: Listen, say: Say = to_stderr) -> dict[str, Any]:
    """Serve the page until the process gets SIGINT or SIGTERM. Return the job's summary.

    Raises ConfigError for an address that cannot be listened on, and TemporaryFailure if another program has the port.
    """
    import uvicorn

    from catalog_enrichment.audit.page.app import create_app
    from catalog_enrichment.audit.page.connections import timed

    guard = guard_of(listen, os.environ, say)
    with ReviewStore(path) as store, bound(listen) as listening:
        app = create_app(site_of(config, store, guard))
        port = listening.getsockname()[1]
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        say(f"review page: {listen.public_url or f'http://{host}:{port}/'} (stop with Ctrl-C)")
        say(f"samples and verdicts are kept in {path}")
        if guard.asks_token and not guard.secure:
            say("warning: without https the token can be read on the way: set up a proxy with https (--public-url)")
        settings = uvicorn.Config(
            app,
            http=timed(),
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(settings)
        with suppress(KeyboardInterrupt):  # uvicorn ends in order and then raises the signal again
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            server.run(sockets=[listening])
        samples = [sample.sample_id for sample in store.samples()]
    return {"status": "stopped", "port": port, "store": str(path), "samples": samples}


def bound(listen: Listen) -> socket.socket:
    """Return a socket that listens on the address."""
    if not 0 <= listen.port <= 65_535:
        raise ConfigError(f"--port must lie in [0, 65535], not {listen.port}")
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family, backlog=128)
    except OSError as problem:
        where = f"cannot listen on {listen.host}, port {listen.port}: {problem.strerror or problem}"
        if problem.errno == errno.EADDRINUSE:
            raise TemporaryFailure(
                f"{where}. Another program has it: stop that program, or choose another --port"
            ) from None
        raise ConfigError(f"{where}. Choose another --host or --port") from None
