// Choice of the reader -> feedback on the server: thumbs, pairs of thumbs and votes, and what is not stored yet.

import { postFeedback } from "./chat_api.js";
import { continuing } from "./compare.js";
import { isVotable } from "./conversation.js";
import { compareRow, newPairs, thumbRow } from "./feedback.js";

/** `conversation()` is the present one; `changed(turn)` is called after each change. */
export function ratings(conversation, changed) {
  const waiting = new Map(); // answer id -> {row, turn, stored, message, sending}

  /** Sends a row; until the server has it, it waits under `key` for a retry with the same identifier. */
  async function send(key, item) {
    waiting.set(key, { ...item, message: null, sending: true });
    changed(item.turn);
    try {
      await postFeedback(item.row);
    } catch (error) {
      if (waiting.has(key)) waiting.set(key, { ...item, message: error.message, sending: false });
      changed(item.turn);
      return;
    }
    waiting.delete(key);
    item.stored();
    changed(item.turn);
  }

  function sendPairs(turn, answer) {
    // One at a time: what the server has not stored waits for the reader, and the next one after it.
    const [pair] = newPairs(conversation(), turn, answer);
    if (!pair) return;
    const stored = () => {
      turn.pairs.push(pair.ids);
      queueMicrotask(() => sendPairs(turn, answer));
    };
    send(answer.id, { row: pair.row, turn, stored });
  }

  return {
    rate(turn, answer, choice) {
      if (answer.thumb === choice || waiting.get(answer.id)?.sending) return;
      const row = thumbRow(conversation(), turn, answer, choice);
      const stored = () => {
        answer.thumb = choice;
        queueMicrotask(() => sendPairs(turn, answer));
      };
      send(answer.id, { row, turn, stored });
    },

    vote(turn, choice) {
      const key = turn.answers[0].id;
      if (!isVotable(turn) || waiting.has(key)) return;
      const row = compareRow(conversation(), turn, choice);
      const stored = () => {
        turn.compare.choice = choice;
        turn.shown = continuing(turn, choice);
      };
      send(key, { row, turn, stored });
    },

    /** Goes on without a vote. */
    skip(turn) {
      waiting.delete(turn.answers[0].id);
      turn.compare.choice = "skip";
      turn.shown = continuing(turn, "skip");
      changed(turn);
    },

    resend(key) {
      const item = waiting.get(key);
      if (item && !item.sending) send(key, item);
    },

    unsent: (key) => (waiting.get(key)?.message ? waiting.get(key) : null),
    isSending: (key) => waiting.get(key)?.sending ?? false,
  };
}
