"""Pictures from http and https servers.

The connections are those of :mod:`catalog_enrichment.web.hosts`, to checked addresses. Redirects are followed
here, and each target is checked like the first URI. One deadline holds for all of it.
"""

from __future__ import annotations

import random
import time

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Url
from urllib3.util.retry import Retry

from catalog_enrichment.config.fetch import FetchConfig
from catalog_enrichment.records import Reason
from catalog_enrichment.web.hosts import (
    REDIRECTS,
    RETRIED,
    Resolve,
    WebHosts,
    body_within,
    discard,
    join,
    retry_after,
    system_resolver,
)
from catalog_enrichment.web.limits import Deadline, NotFetched, PrivateHosts

PAUSE_AFTER, PAUSE_SECONDS = 5, 60.0
"""After so many pictures in a row that a host did not deliver, it is not asked for so long: 1,000 pictures of a host
that is down do not cost 1,000 times the deadline."""

_BACKOFF_SECONDS = 0.5
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "catalog-enrichment"}


class WebPictures:
    """Fetches pictures by http and https; for several threads."""

    def __init__(self, config: FetchConfig, max_bytes: int, resolve: Resolve = system_resolver) -> None:
        self._config, self._max_bytes = config, max_bytes
        self._hosts = WebHosts(config, PrivateHosts(config.private_hosts), resolve)

    def read(self, uri: str, deadline: Deadline) -> bytes:
        """The picture's bytes. Raises NotFetched."""
        for _ in range(self._config.redirects + 1):
            url = self._hosts.parse(uri)
            answer = self._read(url, deadline)
            if isinstance(answer, bytes):
                return answer
            uri = answer
        raise NotFetched(Reason.IMAGE_NOT_ALLOWED, f"more than {self._config.redirects} redirects")

    def _read(self, url: Url, deadline: Deadline) -> bytes | str:
        """The bytes, or the URI of a redirect. Tries again what may work a moment later."""
        host = self._hosts.host(url)
        if time.monotonic() < host.paused_until:
            raise NotFetched(
                Reason.IMAGE_UNREACHABLE, f"{url.host} is not asked for {PAUSE_SECONDS:g} s: it did not answer before"
            )
        had_time = deadline.remaining >= min(self._config.connect_seconds, self._config.seconds / 2)
        try:
            answer = self._with_retries(url, deadline)
        except NotFetched as problem:
            if problem.reason is Reason.IMAGE_UNREACHABLE and not had_time:
                pass  # not the fault of the host: another one redirected to it late, or other pictures took the time
            elif problem.reason is Reason.IMAGE_UNREACHABLE:
                host.failures += 1
                if host.failures >= PAUSE_AFTER:
                    host.paused_until = time.monotonic() + PAUSE_SECONDS
                    host.failures = PAUSE_AFTER - 1  # one more failure after the pause is enough for the next
            else:
                host.failures = 0
            raise
        host.failures = 0
        return answer

    def _with_retries(self, url: Url, deadline: Deadline) -> bytes | str:
        tries = Retry(total=self._config.retries, backoff_factor=_BACKOFF_SECONDS / 2, backoff_jitter=_BACKOFF_SECONDS)
        while True:
            asked = None
            try:
                response = self._hosts.open(url, len(tries.history), deadline, _HEADERS)
                if response.status not in RETRIED and response.status < 500:
                    return self._body(response, url)
                problem = f"HTTP {response.status}"
                asked = retry_after(response)
                response.close()
            except (HTTPError, OSError) as failed:
                deadline.check()  # that may be why it failed
                problem = f"{type(failed).__name__}: {failed}"[:200]
            try:
                tries = tries.increment(method="GET", url=url.path)
            except MaxRetryError:
                raise NotFetched(Reason.IMAGE_UNREACHABLE, problem) from None
            moment = random.uniform(0.5, 1) * _BACKOFF_SECONDS if asked is None else asked
            wait = max(tries.get_backoff_time(), moment)
            if wait >= deadline.remaining:
                raise NotFetched(Reason.IMAGE_UNREACHABLE, problem)
            time.sleep(wait)

    def _body(self, response: urllib3.BaseHTTPResponse, url: Url) -> bytes | str:
        """The body, or the target of a redirect. Raises NotFetched for another status and for too many bytes."""
        status = response.status
        if status == 200:
            return self._content(response)
        target = response.headers.get("Location")
        discard(response)
        if status in REDIRECTS and target:
            return join(url, target)
        if 400 <= status < 500:
            raise NotFetched(Reason.IMAGE_MISSING, f"HTTP {status}")
        raise NotFetched(Reason.IMAGE_UNREADABLE, f"HTTP {status}")

    def _content(self, response: urllib3.BaseHTTPResponse) -> bytes:
        content = body_within(response, self._max_bytes)
        if content is None:
            raise NotFetched(Reason.IMAGE_TOO_LARGE, f"more than {self._max_bytes} bytes")
        return content
