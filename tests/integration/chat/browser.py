"""The chat page in Chromium, driven by Playwright: what its tests share."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MARKS = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set CHROMIUM, or put chromium or google-chrome on PATH"),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

MARKDOWN = """# Title

Some **bold**, *italic*, `code`, ~~gone~~, snake_case_name, 2 * 3 * 4 and a [link](https://example.org/a_(b)).
<img src=x onerror="document.title='hit'"> <script>document.title='hit'</script>
[bad](javascript:alert(1)) and [data](data:text/html,x)

1. one
2. two
   - inner

> quoted
> twice

| a | b |
|---|--:|
| 1 | 2 |

```python
print("<b>")
```
"""


@contextmanager
def launched() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)  # the machine may be busy with the model
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def profile(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """A fresh browser profile; the test fails on any page error, console error or violation of the page's policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url.rstrip("/"))
    context.set_default_timeout(30_000)
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        # Chromium reports every HTTP error here; the tests that cause one expect it on the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            problems.append(message.text)

    context.on("console", on_console)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    yield context
    context.close()
    assert problems == [], problems


def opened(context: BrowserContext, url: str, max_tokens: int = 24) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#model option").first).to_be_attached()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Max tokens").fill(str(max_tokens))
    page.get_by_label("Seed").fill("7")  # the same answers in every run of the tests
    page.get_by_role("button", name="Settings").click()
    return page


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def finished(page: Page) -> None:
    expect(page.locator(".answer").last).to_be_visible()
    expect(page.locator('.answer[data-status="streaming"]')).to_have_count(0, timeout=60_000)


def fragment(conversation: dict[str, Any]) -> str:
    text = json.dumps(conversation).encode()
    return "#c=" + base64.urlsafe_b64encode(text).decode().rstrip("=")


def canned(user: str, content: str) -> dict[str, Any]:
    """A conversation of one turn, as a link holds it."""
    settings = {"model": None, "other": None, "compare": False, "system": "Be brief.", "temperature": 0.3}
    answer = {"model": "m", "system": "", "temperature": 0, "maxTokens": 9, "content": content, "status": "done"}
    turn = {"user": user, "answers": [answer], "shown": 0, "compare": None}
    return {"settings": settings | {"maxTokens": 77, "seed": 5}, "turns": [turn]}
