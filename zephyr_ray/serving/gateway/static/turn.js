// One turn on the page: the question, and one answer, or two side by side with the vote between them.

import { answerView } from "./answer.js";
import { isUndecided, isVotable } from "./conversation.js";
import { el } from "./dom.js";

/** The view of a turn; see answerView for `actions` and `facts`; here also vote and skip. */
export function turnView(turn, actions, facts) {
  const question = el("div", { class: "question" }, el("h2", { class: "sr" }, "You"), el("p", {}, turn.user));
  const answers = turn.compare
    ? [0, 1].map((index) => answerView(turn, index, () => turn.answers[index], actions, facts))
    : [answerView(turn, 0, () => turn.answers[turn.shown], actions, facts)];
  const side = el("div", { class: turn.compare ? "answers two" : "answers" }, ...answers.map((view) => view.root));
  const vote = turn.compare ? voteView(turn, actions, facts) : null;
  const root = el("section", { class: turn.compare ? "turn wide" : "turn" }, question, side, ...(vote ? [vote.root] : []));
  return {
    root,
    vote: vote?.root,
    update() {
      for (const view of answers) view.update();
      vote?.update();
    },
  };
}

function voteView(turn, actions, facts) {
  const choices = [["1 is better", 0, "1"], ["Tie", "tie", "0"], ["2 is better", 1, "2"]];
  const buttons = choices.map(([label, choice, key]) =>
    el("button", { type: "button", "aria-keyshortcuts": key, onclick: () => actions.vote(turn, choice) }, label, el("kbd", {}, key)),
  );
  const skip = el("button", { type: "button", class: "quiet", onclick: () => actions.skip(turn) }, "Skip");
  const hint = el("p", { class: "hint" });
  const failureText = el("span");
  const resend = el("button", { type: "button", onclick: () => actions.resend(turn.answers[0].id) }, "Retry");
  const failure = el("div", { class: "failure", role: "alert", hidden: true }, failureText, resend);
  const row = el("div", { class: "row" }, ...buttons, skip);
  const root = el("div", { class: "vote", role: "group", "aria-label": "Vote", tabindex: "-1" }, row, failure, hint);

  function update() {
    const { busy, unsent, sending } = facts(turn, turn.answers[0]);
    root.hidden = !isUndecided(turn);
    // A vote that may have reached the server is only ever repeated, never changed.
    const open = isVotable(turn) && !unsent && !sending;
    for (const button of buttons) button.disabled = !open;
    skip.disabled = busy || sending;
    failure.hidden = !unsent;
    failureText.textContent = unsent ? `The vote was not stored. ${unsent.message}` : "";
    hint.textContent = open
      ? "The models are named after the vote; the better answer continues the conversation."
      : busy
        ? "Both answers must be complete before the vote."
        : sending || unsent
          ? ""
          : "Retry what is not complete, or skip: then there is no vote.";
  }
  return { root, update };
}
