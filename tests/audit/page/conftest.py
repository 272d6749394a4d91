"""The review page in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OpenPage = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, port: int) -> Iterator[OpenPage]:
    """Opens a path in a browser profile of its own, as the named person; the options are those of a browser context.

    The test fails if the page asks another server for something, or if a script of it fails.
    """
    contexts, elsewhere, problems = [], [], []

    def open_page(path: str, reviewer: str = "Ana", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(10_000)
        own = f"http://127.0.0.1:{port}"
        if reviewer:
            context.add_cookies([{"name": "audit_name", "value": reviewer, "url": own}])
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith(own) or elsewhere.append(request.url))
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.goto(own + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert (elsewhere, problems) == ([], [])
