"""A real Chromium for the page. Where there is none the tests are skipped and say so; with CI=true they fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"NO CHROMIUM, THE REVIEW PAGE IS NOT TESTED: install one of {', '.join(PROGRAMS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


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
