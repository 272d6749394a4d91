"""pyiceberg's client of a REST catalog, with limits of time: its own waits for an answer without end."""

from __future__ import annotations

from typing import Any

from pyiceberg.catalog.rest import RestCatalog
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

SECONDS = (10.0, 120.0)
"""For a connection, and for each part of an answer: a commit of a large table takes a while."""


class _Limited(HTTPAdapter):
    def send(
        self, request: PreparedRequest, stream: bool = False, timeout: Any = None, *others: Any, **more: Any
    ) -> Response:
        return super().send(request, stream, timeout or SECONDS, *others, **more)


class LimitedRestCatalog(RestCatalog):  # type: ignore[misc]
    """A REST catalog whose requests raise requests.Timeout."""

    def _config_headers(self, session: Session) -> None:
        """Prepare a session before its first request, which may be for a token."""
        super()._config_headers(session)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Limited())
