"""The chat page in a browser: Chromium, driven by Playwright, against the page and the API of a running service.

The fixtures `chat_page_url` (where the page is) and `feedback_rows` (the rows stored so far) come from the service.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route, expect, sync_playwright

Rows = Callable[[], list[dict[str, Any]]]

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
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
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

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

RENDER = """async (text) => {
  const { renderMarkdown } = await import("/static/markdown.js");
  const container = document.createElement("div");
  const started = performance.now();
  renderMarkdown(container, text);
  return { html: container.innerHTML.slice(0, 1000), ms: performance.now() - started };
}"""

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
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
    assert problems == []


@pytest.fixture
def context(browser: Browser, chat_page_url: str) -> Iterator[BrowserContext]:
    with profile(browser, chat_page_url) as context:
        yield context


@pytest.fixture(scope="module")
def markdown(browser: Browser, chat_page_url: str) -> Iterator[Callable[[str], Any]]:
    """The page's own rendering of a text: its HTML and how long it took. It leaves nothing on the page."""
    with profile(browser, chat_page_url) as context:
        page = context.new_page()
        page.goto(chat_page_url)
        yield partial(page.evaluate, RENDER)


@pytest.fixture
def page(context: BrowserContext, chat_page_url: str) -> Page:
    """The page, loaded, with short answers that are the same in every run."""
    return opened(context, chat_page_url)


def opened(context: BrowserContext, url: str, max_tokens: int = 24) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#model option").first).to_be_attached()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Max tokens").fill(str(max_tokens))
    page.get_by_label("Seed").fill("7")  # the same answers in every run of the tests
    page.get_by_role("button", name="Settings").click()
    return page


def answers_in_order(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The two answers of a stored row as the page showed them."""
    sides = [
        {"model": row[f"{side}_model"], "fingerprint": row[f"{side}_fingerprint"], **row[side][0]}
        for side in ("chosen", "rejected")
    ]
    return sides[::-1] if row["choice"] == 1 else sides


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


def test_markdown_becomes_elements_and_html_stays_text(context: BrowserContext, chat_page_url: str) -> None:
    page = context.new_page()
    page.goto(chat_page_url + fragment(canned(MARKDOWN, MARKDOWN)))
    text = page.locator(".answer .text")
    expect(text.locator("h3")).to_have_text("Title")
    expect(text.locator("strong")).to_have_text("bold")
    expect(text.locator("em")).to_have_text("italic")
    expect(text.locator("del")).to_have_text("gone")
    expect(text.locator("p code")).to_have_text("code")
    expect(text.locator("ol > li")).to_have_count(2)
    expect(text.locator("ol > li ul > li")).to_have_text("inner")
    expect(text.locator("blockquote")).to_contain_text("twice")
    expect(text.locator("td.right")).to_have_text("2")
    expect(text.locator(".code pre code")).to_have_text('print("<b>")')
    expect(text.locator("a")).to_have_count(1)
    link = text.locator("a")
    assert [link.get_attribute(name) for name in ("href", "rel", "target")] == [
        "https://example.org/a_(b)",
        "noopener noreferrer",
        "_blank",
    ]
    expect(text).to_contain_text("snake_case_name, 2 * 3 * 4")
    expect(text).to_contain_text("<script>document.title='hit'</script>")
    expect(text).to_contain_text("[bad](javascript:alert(1))")
    expect(page.locator(".question p")).to_contain_text("<img src=x onerror=")
    assert page.locator("#log :is(img, script, iframe, object, [onerror])").count() == 0
    assert page.title() != "hit"
    text.get_by_role("button", name="Copy code").click()
    assert page.evaluate("navigator.clipboard.readText()") == 'print("<b>")'
    # The answer came with the link, so no model of this server need have made it: it takes no rating.
    expect(page.get_by_role("button", name="Good answer")).to_be_hidden()


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("a\nb", "<p>a<br>b</p>"),
        ("**a *b* c** _d_ __e__ ***f***", "<p><strong>a <em>b</em> c</strong> <em>d</em> <strong>e</strong> "
         "<strong><em>f</em></strong></p>"),
        ("**open and *open", "<p>**open and *open</p>"),
        ("`` a`b `` and `*c*`", "<p><code>a`b</code> and <code>*c*</code></p>"),
        (r"\*no\* \`no\`", "<p>*no* `no`</p>"),
        ("# A\n####### B", "<h3>A</h3><p>####### B</p>"),
        ("- a\n- b\n\n  more\n- c", "<ul><li>a</li><li>b<p>more</p></li><li>c</li></ul>"),
        ("3. a\n4. b\n- c", '<ol start="3"><li>a</li><li>b</li></ol><ul><li>c</li></ul>'),
        ("> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"),
        ("a\n\n---\nb", "<p>a</p><hr><p>b</p>"),
        ("&lt;b&gt; <b>x</b>", "<p>&amp;lt;b&amp;gt; &lt;b&gt;x&lt;/b&gt;</p>"),
        ("[a](/local) ![b](file:///x)", "<p>[a](/local) ![b](file:///x)</p>"),
    ],
)  # fmt: skip
def test_markdown_by_hand(markdown: Callable[[str], Any], source: str, html: str) -> None:
    assert markdown(source)["html"] == html


@pytest.mark.parametrize(
    "unit",
    ["*a ", "**a** *", "[a](", "[", "`a``", "> ", "- ", "_a_*", "| ", "***", "# ", " ", "a\n- ", "~~a ", "![](x"],
)
def test_no_text_makes_markdown_slow(markdown: Callable[[str], Any], unit: str) -> None:
    """The time for 100 kB of the worst stays in proportion: a quadratic step would take minutes."""
    assert markdown(unit * (100_000 // len(unit)))["ms"] < 8000
    assert markdown("x\n" + unit * (100_000 // len(unit)) + "|\n" + "|" + unit * 30_000)["ms"] < 8000


@pytest.mark.parametrize(("key", "choice"), [("1", 0), ("2", 1), ("0", "tie")])
def test_compare_is_blind_until_the_vote(page: Page, feedback_rows: Rows, key: str, choice: int | str) -> None:
    before = len(feedback_rows())
    page.get_by_role("button", name="Compare", exact=True).click()
    models = set(page.locator("#model option, #other-model option").all_inner_texts())
    ask(page, "Which is better?")
    finished(page)
    expect(page.get_by_role("group", name="Vote")).to_be_focused()
    blind = page.locator("#log").inner_html()
    assert not any(re.search(rf"\b{re.escape(model)}\b", blind) for model in models)
    expect(page.locator(".who")).to_have_text(["Answer 1", "Answer 2"])
    shown = page.locator(".answer .text").all_inner_texts()
    assert len(feedback_rows()) == before
    page.keyboard.press(key)
    expect(page.locator(".who").first).to_contain_text(re.compile("Answer 1 · ."))
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    (row,) = feedback_rows()[before:]
    assert UUID4.fullmatch(row["feedback_id"])
    assert (row["kind"], row["choice"]) == ("compare", choice)
    assert row["prompt"] == [{"role": "user", "content": "Which is better?"}]
    answers = answers_in_order(row)
    revealed = [f"Answer {n} · {answer['model']}" for n, answer in enumerate(answers, 1)]
    assert revealed == page.locator(".who").all_inner_texts()
    assert {answer["model"] for answer in answers} <= models
    assert all(answer["fingerprint"] for answer in answers)
    assert [answer["content"].split() for answer in answers] == [text.split() for text in shown]
    assert (row["settings"]["temperature"], row["settings"]["max_tokens"]) == (0.7, 24)
    if len(models) == 1:
        assert len(set(row["settings"]["seeds"])) == 2
    # The better one, or after a tie the first, is what the conversation goes on from.
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Go on.")
    history = request.value.post_data_json["messages"]
    assert history[1] == {"role": "assistant", "content": answers[1 if choice == 1 else 0]["content"]}


def test_a_failed_side_is_not_votable_until_it_is_retried(page: Page, feedback_rows: Rows) -> None:
    before = len(feedback_rows())
    failed: list[str] = []

    def fail_once(route: Route) -> None:
        if failed:
            return route.fallback()
        failed.append(route.request.post_data_json["model"])
        body = {"error": {"message": f"{failed[0]} is busy.", "type": "rate_limit", "param": None, "code": None}}
        return route.fulfill(status=429, headers={"Retry-After": "7"}, json=body)

    page.route("**/v1/chat/completions", fail_once)
    page.get_by_role("button", name="Compare", exact=True).click()
    ask(page, "Which is better?")
    finished(page)
    expect(page.get_by_role("alert").filter(has_text="[model] is busy. Try again in 7 s.")).to_be_visible()
    expect(page.get_by_role("button", name="1 is better")).to_be_disabled()
    page.keyboard.press("1")
    page.get_by_role("button", name="Retry").click()
    finished(page)
    page.get_by_role("button", name="2 is better").click()
    expect(page.locator(".badge:visible")).to_have_text("preferred")
    assert [row["choice"] for row in feedback_rows()[before:]] == [1]


def test_opposite_thumbs_on_two_versions_make_one_pair(page: Page, feedback_rows: Rows) -> None:
    before = len(feedback_rows())
    ask(page, "Say something.")
    finished(page)
    first = page.locator(".answer .text").inner_text()
    up = page.get_by_role("button", name="Good answer")
    down = page.get_by_role("button", name="Bad answer")
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Regenerate").click()
    finished(page)
    expect(page.get_by_role("group", name="Versions")).to_contain_text("2/2")
    expect(up).to_have_attribute("aria-pressed", "false")
    with page.expect_response(lambda response: "thumb_pair" in (response.request.post_data or "")):
        down.click()
    expect(down).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(".answer .text")).to_have_text(first, use_inner_text=True)
    expect(up).to_have_attribute("aria-pressed", "true")
    rows = feedback_rows()[before:]
    assert [(row["kind"], row["choice"]) for row in rows] == [("thumb", "up"), ("thumb", "down"), ("thumb_pair", 0)]
    up, down = rows[0]["chosen"], rows[1]["rejected"]
    assert (rows[0]["rejected"], rows[1]["chosen"]) == (None, None)
    assert (rows[2]["chosen"], rows[2]["rejected"]) == (up, down)
    assert rows[2]["prompt"] == [{"role": "user", "content": "Say something."}]
    assert len({row["feedback_id"] for row in rows}) == 3


def test_earlier_version_stays_within_reach_when_the_next_one_fails(page: Page) -> None:
    ask(page, "Say something.")
    finished(page)
    first = page.locator(".answer .text").inner_text()
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".answer").get_by_role("alert")).to_contain_text("The server cannot be reached.")
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(".answer .text")).to_have_text(first, use_inner_text=True)
    expect(page.locator(".answer").get_by_role("alert")).to_have_count(0)


def test_a_rating_that_did_not_arrive_is_repeated_with_its_id(page: Page, feedback_rows: Rows) -> None:
    before = len(feedback_rows())
    sent: list[str] = []

    def lose_first(route: Route) -> None:
        sent.append(route.request.post_data_json["id"])
        route.abort() if len(sent) == 1 else route.fallback()

    page.route("**/feedback", lose_first)
    ask(page, "Say something.")
    finished(page)
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_text("The rating was not stored.")).to_be_visible()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    assert len(sent) == 2
    assert [row["feedback_id"] for row in feedback_rows()[before:]] == [sent[0]] == [sent[1]]


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
