"""A real browser without a window: the distribution's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser's program. Without one, the test is skipped; in CI it fails."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"no browser is installed: none of {', '.join(NAMES)} is on the path")
    if found is None:
        pytest.skip("no browser is installed")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a new and empty profile, until the block ends. It runs an event loop in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=[*ARGUMENTS])
        try:
            yield Browser(opened.new_context(offline=True).new_page())
        finally:
            opened.close()


class Browser:
    """One tab, in which one page after the other is opened."""

    def __init__(self, page: Any) -> None:
        self._page, self._said = page, list[str]()
        page.on("console", lambda message: self._said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self._said.append(str(error)))
        page.on("request", lambda asked: self._asked(asked.url))
        page.set_default_timeout(60_000)  # on a busy machine the first page of a browser is slow

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "about:")):
            self._said.append(f"asked for {url}")

    @contextmanager
    def showing(
        self, file: Path, address: str = "", *, width: int = 1440, scheme: Any = "light", before: str = ""
    ) -> Iterator[Any]:
        """A page from disk. Whatever it says on its console, asks a network for or fails in, fails the test.

        `before`: JavaScript that runs before the page's own.
        """
        if before:
            self._page.add_init_script(before)
        self._said.clear()
        self._page.set_viewport_size({"width": width, "height": 900})
        self._page.emulate_media(color_scheme=scheme)
        self._page.goto("about:blank")
        self._page.goto(f"{file.as_uri()}{address}")
        self._page.wait_for_selector("html[data-ready]")
        yield self._page
        assert self._said == []
