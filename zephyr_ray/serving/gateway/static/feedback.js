// Conversation + choice -> one row of feedback. A row is made once and sent as it is until the server has it.

import { promptOf } from "./conversation.js";
import { uuid4 } from "./dom.js";

function row(kind, conversation, turn, answers, choice, settingsOf) {
  return {
    id: uuid4(),
    kind,
    messages: promptOf(conversation, turn, settingsOf),
    answers: answers.map(({ model, fingerprint, content }) => ({ model, fingerprint, content })),
    choice,
    settings: {
      temperature: settingsOf.temperature,
      max_tokens: settingsOf.maxTokens,
      seeds: answers.map((answer) => answer.seed),
    },
  };
}

/** A blind vote: `choice` is 0, 1 or "tie", in the order shown. */
export const compareRow = (conversation, turn, choice) =>
  row("compare", conversation, turn, turn.answers, choice, turn.answers[0]);

export const thumbRow = (conversation, turn, answer, choice) =>
  row("thumb", conversation, turn, [answer], choice, answer);

/**
 * The pairs that `answer` now forms with other versions of its turn: opposite thumbs under one prompt.
 *
 * Versions under another system message answer another prompt, so they make no pair. The pairs come with the row to
 * send; a pair in `turn.pairs` was sent already.
 */
export function newPairs(conversation, turn, answer) {
  return turn.answers
    .filter((other) => other.thumb && other.thumb !== answer.thumb && other.system === answer.system)
    .filter((other) => !turn.pairs.some((pair) => pair.includes(other.id) && pair.includes(answer.id)))
    .map((other) => {
      const answers = turn.answers.filter((one) => one === answer || one === other);
      const up = answers.findIndex((one) => one.thumb === "up");
      return {
        ids: answers.map((one) => one.id),
        row: row("thumb_pair", conversation, turn, answers, up, answers[up]),
      };
    });
}
