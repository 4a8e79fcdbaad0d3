// The conversation as plain data, so that it can be stored and put in a link; no DOM here.
//
// {settings, turns: [{user, answers: [answer, ...], shown, compare: null | {choice}, pairs: [[id, id], ...]}]}
// A turn has the versions of one answer, or in compare mode the two that stand against each other.

import { uuid4 } from "./dom.js";

export const DEFAULTS = { model: null, other: null, compare: false, system: "", temperature: 0.7, maxTokens: null, seed: null };
export const FALLBACK_MAX_TOKENS = 512;

export const newConversation = (settings = DEFAULTS) => ({ settings: { ...settings }, turns: [] });

export const newTurn = (user, compare) => ({ user, answers: [], shown: 0, compare: compare ? { choice: null } : null, pairs: [] });

/** An answer that is about to be asked for, with all that it takes to ask again. */
export function newAnswer({ model, seed }, settings) {
  return {
    id: uuid4(),
    model,
    fingerprint: null,
    system: settings.system,
    temperature: settings.temperature,
    maxTokens: settings.maxTokens,
    seed,
    content: "",
    status: "streaming", // then "done", "stopped" or "error"
    error: null,
    finish: null,
    stats: null,
    thumb: null,
    imported: false,
  };
}

/**
 * The messages that `answer` replies to: its system message, the turns before with the answer shown, and the question.
 * A turn that got no text at all is left out: chat templates want the roles to alternate.
 */
export function promptOf(conversation, turn, answer) {
  const messages = answer.system ? [{ role: "system", content: answer.system }] : [];
  for (const earlier of conversation.turns.slice(0, conversation.turns.indexOf(turn))) {
    const content = earlier.answers[earlier.shown].content;
    if (content) messages.push({ role: "user", content: earlier.user }, { role: "assistant", content });
  }
  return [...messages, { role: "user", content: turn.user }];
}

/** A fixed seed gives version n the seed + n: the same seed would only repeat the answer. */
export const versionSeed = (seed, version) => (seed === null ? null : seed + version);

/** A compare turn that waits for its vote. */
export const isUndecided = (turn) => Boolean(turn?.compare && turn.compare.choice === null);

export const isVotable = (turn) => isUndecided(turn) && turn.answers.every((answer) => answer.status === "done");

/**
 * A conversation out of a link or out of storage; throws a TypeError for anything else.
 *
 * What comes in a link was written by someone else: its answers may never have come from a model, so they are marked
 * `imported` and take no rating, and a vote that was open stays open no longer.
 */
export function revive(data, { imported }) {
  const settings = {
    model: optional(data.settings.model, "string"),
    other: optional(data.settings.other, "string"),
    compare: data.settings.compare === true,
    system: required(data.settings.system, "string"),
    temperature: required(data.settings.temperature, "number"),
    maxTokens: optional(data.settings.maxTokens, "number"),
    seed: optional(data.settings.seed, "number"),
  };
  const turns = data.turns.map((turn) => reviveTurn(turn, imported));
  return { settings, turns };
}

function reviveTurn(turn, imported) {
  const answers = turn.answers.map((answer) => reviveAnswer(answer, imported));
  if (!Number.isInteger(turn.shown) || !answers[turn.shown]) throw new TypeError("no answer is shown");
  if (turn.compare && answers.length !== 2) throw new TypeError("a comparison has two answers");
  const choice = turn.compare?.choice;
  const known = [0, 1, "tie", "skip"].includes(choice) ? choice : imported ? "skip" : null;
  return {
    user: required(turn.user, "string"),
    answers,
    shown: turn.shown,
    compare: turn.compare ? { choice: known } : null,
    pairs: imported ? [] : turn.pairs,
  };
}

function reviveAnswer(answer, imported) {
  return {
    id: imported ? uuid4() : required(answer.id, "string"),
    model: required(answer.model, "string"),
    fingerprint: optional(answer.fingerprint, "string"),
    system: required(answer.system, "string"),
    temperature: required(answer.temperature, "number"),
    maxTokens: required(answer.maxTokens, "number"),
    seed: optional(answer.seed, "number"),
    content: required(answer.content, "string"),
    // The page was left in the middle of it.
    status: ["done", "error"].includes(answer.status) ? answer.status : "stopped",
    error: answer.error ? { message: String(answer.error.message), retryAfter: null } : null,
    finish: optional(answer.finish, "string"),
    stats: answer.stats ? Object.fromEntries(Object.entries(answer.stats).map(([k, v]) => [k, optional(v, "number")])) : null,
    thumb: imported || !["up", "down"].includes(answer.thumb) ? null : answer.thumb,
    imported: imported || answer.imported === true,
  };
}

function required(value, type) {
  if (typeof value !== type) throw new TypeError(`expected a ${type}`);
  return value;
}

const optional = (value, type) => (value === null || value === undefined ? null : required(value, type));
