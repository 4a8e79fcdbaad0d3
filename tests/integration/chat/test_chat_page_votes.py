"""What people say of answers on the chat page, in a browser: votes and thumbs, and the rows that are stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.integration.chat.browser import MARKS, ask, finished

Rows = Callable[[], list[dict[str, Any]]]
pytestmark = MARKS

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def answers_in_order(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The two answers of a stored row as the page showed them."""
    sides = [
        {"model": row[f"{side}_model"], "fingerprint": row[f"{side}_fingerprint"], **row[side][0]}
        for side in ("chosen", "rejected")
    ]
    return sides[::-1] if row["choice"] == 1 else sides


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
