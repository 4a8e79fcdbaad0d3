"""The chat page in a browser, against the page and the API of a running service: an answer, its faults, links, keys."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.integration.chat.browser import MARKDOWN, MARKS, ask, canned, finished, fragment, opened

pytestmark = MARKS

# Between the server and the page: each event of a stream on its own, after a pause, so that a test can look in between.
SLOW_STREAM = """
const fetchNow = window.fetch;
window.fetch = async (path, options) => {
  const response = await fetchNow(path, options);
  if (!String(path).endsWith("/chat/completions") || !response.ok) return response;
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let rest = "";
  const slow = new TransformStream({
    async transform(chunk, controller) {
      const events = (rest + decoder.decode(chunk, { stream: true })).split("\\n\\n");
      rest = events.pop();
      for (const event of events) {
        if (options.signal.aborted) return;
        await new Promise((resume) => setTimeout(resume, PAUSE));
        controller.enqueue(encoder.encode(event + "\\n\\n"));
      }
    },
  });
  return new Response(response.body.pipeThrough(slow), { status: response.status, headers: response.headers });
};
"""

HALF = 'data: {"choices":[{"delta":{"content":"Half"}}]}\n\n'

LOST_STREAM = """
const fetchNow = window.fetch;
window.fetch = async (path, options) => {
  if (!String(path).endsWith("/chat/completions")) return fetchNow(path, options);
  const event = new TextEncoder().encode('data: {"choices":[{"delta":{"content":"Half"}}]}\\n\\n');
  let pulls = 0;
  return new Response(new ReadableStream({
    pull(controller) {
      if (pulls++) controller.error(new TypeError("network error"));
      else controller.enqueue(event);
    },
  }, { highWaterMark: 0 }));
};
"""


def test_answer_streams_and_its_numbers_follow(context: BrowserContext, chat_page_url: str) -> None:
    context.add_init_script(SLOW_STREAM.replace("PAUSE", "40"))
    page = opened(context, chat_page_url)
    ask(page, "Tell me a story.")
    answer = page.locator('.answer[data-status="streaming"] .text')
    lengths: set[int] = set()
    while answer.count():
        lengths.add(len(page.locator(".answer .text").inner_text()))
        page.wait_for_timeout(20)
    assert len(lengths) > 2, "the text came at once"
    expect(page.locator(".stats")).to_contain_text(
        re.compile(r"\d+ → \d+ tokens · first \d+\.\d\d s · [\d.]+ tokens/s")
    )
    expect(page.get_by_role("button", name="Send")).to_be_visible()


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_the_partial_text(context: BrowserContext, chat_page_url: str, how: str) -> None:
    context.add_init_script(SLOW_STREAM.replace("PAUSE", "250"))
    page = opened(context, chat_page_url, max_tokens=100)
    ask(page, "Tell me a long story.")
    expect(page.locator(".answer .text")).to_contain_text(re.compile(r"\S"))
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    finished(page)
    partial = page.locator(".answer .text").inner_text()
    assert partial.strip()
    expect(page.locator(".stats")).to_contain_text("stopped")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    ask(page, "And then?")
    expect(page.locator(".turn")).to_have_count(2)
    assert page.locator(".answer .text").first.inner_text() == partial


def test_reload_and_link_reproduce_the_conversation(browser: Browser, page: Page, chat_page_url: str) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System message").fill("Be brief. Ünïcode ✓")
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Seed").fill("11")
    ask(page, "Hello?")
    finished(page)
    text = page.locator("#log").inner_text()
    page.reload()
    expect(page.locator(".answer")).to_have_count(1)
    assert page.locator("#log").inner_text() == text
    page.get_by_role("button", name="Link").click()
    expect(page.locator("#toast")).to_have_text("Link copied")
    url = page.evaluate("navigator.clipboard.readText()")
    assert url.startswith(chat_page_url.rstrip("/") + "/#c=")

    other = browser.new_context()
    fresh = other.new_page()
    fresh.goto(url)
    expect(fresh.locator(".answer .text")).to_have_text(page.locator(".answer .text").inner_text(), use_inner_text=True)
    expect(fresh.locator(".question p")).to_have_text("Hello?")
    expect(fresh.locator("#model option").first).to_be_attached()
    fresh.get_by_role("button", name="Settings").click()
    expect(fresh.get_by_label("System message")).to_have_value("Be brief. Ünïcode ✓")
    expect(fresh.get_by_label("Temperature")).to_have_value("0.25")
    expect(fresh.get_by_label("Max tokens")).to_have_value("24")
    expect(fresh.get_by_label("Seed")).to_have_value("11")
    with fresh.expect_request("**/v1/chat/completions") as request:
        ask(fresh, "And?")
    body = request.value.post_data_json
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.25, 24, 11)
    other.close()


def test_damaged_link_is_refused_in_words(context: BrowserContext, chat_page_url: str) -> None:
    page = opened(context, chat_page_url)
    ask(page, "Hello?")
    finished(page)
    page.goto(chat_page_url + "#c=e30!")
    expect(page.locator("#toast")).to_contain_text("This link is damaged")
    expect(page.locator(".question p")).to_have_text("Hello?")


def test_key_form_on_401(context: BrowserContext, chat_page_url: str) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            return route.fallback()
        return route.fulfill(
            status=401, json={"error": {"message": "No.", "type": "auth", "param": None, "code": None}}
        )

    context.route("**/v1/models", guard)
    page = context.new_page()
    page.goto(chat_page_url)
    key = page.get_by_label("This server asks for an API key.")
    expect(key).to_be_focused()
    key.fill("wrong")
    key.press("Enter")
    expect(page.get_by_text("The server refused the API key.")).to_be_visible()
    page.locator("#key").fill("right")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#model option").first).to_be_attached()
    expect(page.locator("#key-form")).to_be_hidden()
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Hello?")
    assert request.value.headers["authorization"] == "Bearer right"
    assert "right" not in page.evaluate("sessionStorage.getItem('conversation')")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {"status": 400, "json": {"error": {"message": "Too long.", "type": "x"}}},
            "Too long.",
        ),
        ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "The server answered with status 502."),
        (
            {
                "content_type": "text/event-stream",
                "body": HALF + 'data: {"error":{"message":"Engine died."}}\n\n',
            },
            "Engine died.",
        ),
        (
            {"content_type": "text/event-stream", "body": HALF},
            "The connection closed before the answer was complete.",
        ),
        (None, "The server cannot be reached."),
    ],
    ids=["error body", "no error body", "error event", "cut stream", "no connection"],
)
def test_errors_are_said_at_the_answer_and_can_be_retried(
    page: Page, answer: dict[str, Any] | None, words: str
) -> None:
    calls: list[Route] = []

    def fail_once(route: Route) -> None:
        calls.append(route)
        if len(calls) > 1:
            return route.fallback()
        return route.abort() if answer is None else route.fulfill(**answer)

    page.route("**/v1/chat/completions", fail_once)
    ask(page, "Hello?")
    expect(page.locator(".answer").get_by_role("alert").filter(has_text=words)).to_be_visible()
    page.get_by_role("button", name="Retry").click()
    finished(page)
    expect(page.locator('.answer[data-status="done"]')).to_have_count(1)
    expect(page.locator(".answer").get_by_role("alert")).to_have_count(0)


def test_connection_lost_in_the_middle_keeps_what_came(context: BrowserContext, chat_page_url: str) -> None:
    context.add_init_script(LOST_STREAM)
    page = opened(context, chat_page_url)
    ask(page, "Hello?")
    expect(page.locator(".answer").get_by_role("alert")).to_contain_text("The connection to the server was lost.")
    expect(page.locator(".answer .text")).to_have_text("Half")


def test_keyboard_alone_is_enough(page: Page) -> None:
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    page.keyboard.press("Enter")
    finished(page)
    assert page.locator(".question p").inner_text() == "One\nTwo"
    reached: list[str] = []
    for _ in range(25):
        page.keyboard.press("Shift+Tab")
        focused = page.evaluate(
            "[document.activeElement.ariaLabel ?? document.activeElement.id, "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        if focused[0]:
            assert focused[1] != "none", f"no visible focus on {focused[0]}"
        reached.append(focused[0])
    assert {"Good answer", "Bad answer", "Copy answer", "model", "compare", "settings-toggle", "new-chat"} <= set(
        reached
    )
    page.locator("#new-chat").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


@pytest.mark.parametrize("compare", [False, True], ids=["chat", "compare"])
def test_phone_has_no_horizontal_scroll(browser: Browser, chat_page_url: str, compare: bool) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = opened(context, chat_page_url + fragment(canned("w" * 300, MARKDOWN + "\n```\n" + "x" * 400 + "\n```\n")))
    page.get_by_role("button", name="Settings").click()
    if compare:
        page.get_by_role("button", name="Compare", exact=True).click()
        ask(page, "Which is better?")
        finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = page.locator("header button:visible, footer button:visible, .vote button:visible")
    for box in (boxes.nth(index).bounding_box() for index in range(boxes.count())):
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    context.close()
