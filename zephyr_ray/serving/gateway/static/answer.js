// One answer on the page: its text as it streams, its error with a way out, its numbers and its buttons.

import { withoutNames } from "./compare.js";
import { isUndecided } from "./conversation.js";
import { copyButton, el, thumbIcon } from "./dom.js";
import { renderMarkdown } from "./markdown.js";

/**
 * The view of the answer that `answerOf()` returns; `update()` brings it up to date.
 *
 * `actions`: retry, rate, regenerate, page, resend; `facts()` says {isLast, busy, unsent} at the time.
 */
export function answerView(turn, index, answerOf, actions, facts) {
  const name = el("h2", { class: "who" });
  const badge = el("span", { class: "badge", hidden: true }, "preferred");
  const text = el("div", { class: "text" });
  const failureText = el("span");
  const retry = el("button", { type: "button", onclick: () => actions.retry(turn, answerOf()) }, "Retry");
  const failure = el("div", { class: "failure", role: "alert", hidden: true }, failureText, retry);
  const stats = el("span", { class: "stats" });
  const copy = copyButton(() => answerOf().content, "Copy answer");
  const thumb = (choice, label) =>
    el(
      "button",
      {
        type: "button",
        class: `quiet thumb ${choice}`,
        "aria-label": label,
        title: label,
        "aria-pressed": "false",
        onclick: () => actions.rate(turn, answerOf(), choice),
      },
      thumbIcon(),
    );
  const up = thumb("up", "Good answer");
  const down = thumb("down", "Bad answer");
  const regenerate = el("button", { type: "button", class: "quiet", onclick: () => actions.regenerate(turn) }, "Regenerate");
  const previous = el("button", { type: "button", class: "quiet", "aria-label": "Previous version" }, "‹");
  const following = el("button", { type: "button", class: "quiet", "aria-label": "Next version" }, "›");
  previous.addEventListener("click", () => actions.page(turn, -1));
  following.addEventListener("click", () => actions.page(turn, 1));
  const place = el("span", { class: "place" });
  const pager = el("span", { class: "pager", role: "group", "aria-label": "Versions", hidden: true }, previous, place, following);
  const unsentText = el("span");
  const resend = el("button", { type: "button", onclick: () => actions.resend(answerOf().id) }, "Retry");
  const unsent = el("div", { class: "failure", role: "alert", hidden: true }, unsentText, resend);
  const foot = el("div", { class: "foot" }, el("span", { class: "tools" }, copy, up, down, regenerate, pager), stats);
  const root = el("article", { class: "answer" }, el("div", { class: "head" }, name, badge), text, failure, unsent, foot);

  function update() {
    const answer = answerOf();
    const { isLast, busy, unsent: notSent } = facts(turn, answer);
    const blind = isUndecided(turn);
    const streaming = answer.status === "streaming";
    const label = turn.compare ? `Answer ${index + 1}` : null;
    name.textContent = blind ? label : [label, answer.model].filter(Boolean).join(" · ");
    name.title = !blind && answer.fingerprint ? `Fingerprint ${answer.fingerprint}` : "";
    root.setAttribute("aria-label", label ?? "Answer");
    root.dataset.status = answer.status;
    badge.hidden = !(turn.compare && (turn.compare.choice === index || turn.compare.choice === "tie"));
    badge.textContent = turn.compare?.choice === "tie" ? "tie" : "preferred";

    // Read out once it is complete, and only when it was made here: a restored conversation is no news.
    if (streaming) text.setAttribute("aria-live", "polite");
    text.setAttribute("aria-busy", String(streaming));
    renderMarkdown(text, answer.content);

    const problem = failureOf(turn, answer);
    failure.hidden = problem === null;
    setText(failureText, problem === null || !blind ? (problem ?? "") : withoutNames(problem, turn.answers));
    retry.hidden = !isLast || (turn.compare !== null && !blind);
    retry.disabled = busy && !blind;
    unsent.hidden = !notSent;
    setText(unsentText, notSent ? `The rating was not stored. ${notSent.message}` : "");

    foot.hidden = !answer.content && (streaming || (answer.status === "error" && turn.answers.length < 2));
    stats.textContent = blind || streaming ? "" : numbers(answer);
    copy.hidden = streaming || !answer.content;
    // Half an answer says little about the model, and one out of a link may be no model's at all.
    const ratable = !turn.compare && answer.status === "done" && answer.content !== "" && !answer.imported;
    for (const [button, choice] of [[up, "up"], [down, "down"]]) {
      button.hidden = !ratable;
      button.setAttribute("aria-pressed", String(answer.thumb === choice));
    }
    regenerate.hidden = Boolean(turn.compare) || !isLast || streaming || answer.status === "error";
    regenerate.disabled = busy;
    // Earlier versions of an earlier turn are not what the rest of the conversation replied to.
    pager.hidden = Boolean(turn.compare) || turn.answers.length < 2 || !isLast || busy;
    place.textContent = `${turn.shown + 1}/${turn.answers.length}`;
    previous.disabled = turn.shown === 0;
    following.disabled = turn.shown === turn.answers.length - 1;
  }
  return { root, update };
}

/** A live region speaks when it changes: the same words again must not. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function failureOf(turn, answer) {
  if (answer.status === "stopped" && isUndecided(turn)) return "Stopped before the end: not votable.";
  if (answer.status !== "error") return null;
  const { message, retryAfter } = answer.error;
  return retryAfter ? `${message} Try again ${retryAfter}.` : message;
}

/** "38 tokens · first after 0.12 s · 41.0 tokens/s": what is known of it. */
function numbers({ content, status, finish, stats, seed }) {
  const parts = [];
  if (status === "stopped") parts.push("stopped");
  else if (!content.trim()) parts.push("no text");
  if (finish === "length") parts.push("cut at max tokens");
  if (stats?.completionTokens != null) parts.push(`${stats.promptTokens} → ${stats.completionTokens} tokens`);
  if (stats?.firstMs != null) parts.push(`first ${(stats.firstMs / 1000).toFixed(2)} s`);
  if (stats?.perSecond != null) parts.push(`${stats.perSecond.toFixed(1)} tokens/s`);
  if (seed !== null) parts.push(`seed ${seed}`);
  return parts.join(" · ");
}
