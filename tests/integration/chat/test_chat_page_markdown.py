"""The chat page's rendering of an answer's Markdown, in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.integration.chat.browser import MARKDOWN, MARKS, canned, fragment, profile

pytestmark = MARKS

RENDER = """async (text) => {
  const { renderMarkdown } = await import("/static/markdown.js");
  const container = document.createElement("div");
  const started = performance.now();
  renderMarkdown(container, text);
  return { html: container.innerHTML.slice(0, 1000), ms: performance.now() - started };
}"""


@pytest.fixture(scope="module")
def markdown(browser: Browser, chat_page_url: str) -> Iterator[Callable[[str], Any]]:
    """The page's own rendering of a text: its HTML and how long it took. It leaves nothing on the page."""
    with profile(browser, chat_page_url) as context:
        page = context.new_page()
        page.goto(chat_page_url)
        yield partial(page.evaluate, RENDER)


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
