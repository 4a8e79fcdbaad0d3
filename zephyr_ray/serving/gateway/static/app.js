// The page: reads the served models and the kept conversation, sends prompts, and wires the controls to both.

import { ApiError, listModels } from "./chat_api.js";
import { sides } from "./compare.js";
import { composer } from "./composer.js";
import { isUndecided, isVotable, newAnswer, newConversation, newTurn, promptOf, versionSeed } from "./conversation.js";
import { copyText } from "./dom.js";
import { isLink, keep, kept, linkTo, openedLink } from "./keep.js";
import { keyForm } from "./key_form.js";
import { ratings } from "./ratings.js";
import { runAnswer } from "./run.js";
import { settingsPanel } from "./settings.js";
import { turnView } from "./turn.js";

const $ = (id) => document.getElementById(id);

let conversation = newConversation();
let ready = false; // the models are known
const runs = new Map(); // answer -> AbortController, while it streams
const views = new Map(); // turn -> its view
const stale = new Set(); // turns to draw again in the next frame
let frame = 0;

const panel = settingsPanel(() => {
  if (panel.isValid()) conversation.settings = panel.read();
  refresh();
  save();
});
const rating = ratings(
  () => conversation,
  (turn) => {
    refresh(turn);
    save();
    if (turn.compare && !isUndecided(turn)) $("prompt").focus();
  },
);
const actions = { ...rating, retry, regenerate, page };
const message = composer(send, () => refresh());

const lastTurn = () => conversation.turns.at(-1);
const isBusy = () => runs.size > 0;
const facts = (turn, answer) => ({
  isLast: turn === lastTurn(),
  busy: isBusy(),
  unsent: rating.unsent(answer.id),
  sending: rating.isSending(answer.id),
});

// ---- drawing

function refresh(...turns) {
  for (const turn of turns) stale.add(turn);
  const undecided = isUndecided(lastTurn());
  const prompt = $("prompt");
  $("send").hidden = isBusy();
  $("send").disabled = !ready || undecided || !prompt.value.trim();
  $("stop").hidden = !isBusy();
  $("link").disabled = isBusy() || !conversation.turns.length;
  prompt.disabled = undecided;
  prompt.placeholder = undecided ? "Vote or skip to go on" : "Message";
  $("empty").hidden = conversation.turns.length > 0;
  $("empty-hint").textContent = conversation.settings.compare
    ? "Two answers come side by side without their models' names. Say which is better."
    : "Answers are made by a model and may be wrong.";
  document.body.classList.toggle("comparing", conversation.settings.compare);
  if (stale.size && !frame) frame = requestAnimationFrame(draw);
}

function draw() {
  cancelAnimationFrame(frame);
  frame = 0;
  // Follow the text as long as the reader stays at the end of it.
  const page = document.scrollingElement;
  const following = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  for (const turn of stale) views.get(turn)?.update();
  stale.clear();
  if (following) page.scrollTop = page.scrollHeight;
}

function addView(turn) {
  const view = turnView(turn, actions, facts);
  views.set(turn, view);
  $("log").append(view.root);
}

function showConversation(next) {
  stop();
  conversation = next;
  views.clear();
  $("log").replaceChildren();
  for (const turn of conversation.turns) addView(turn);
  const missing = panel.show(conversation.settings);
  if (ready && missing.length) toast(`Not served here: ${missing.join(", ")}`);
  if (ready && panel.isValid()) conversation.settings = panel.read();
  refresh(...conversation.turns);
  draw();
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  $("status").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 4000);
}

function save() {
  if (!keep(conversation)) toast("Too long to keep: a reload will lose the latest turns.");
}

// ---- asking

async function run(turn, answer) {
  const controller = new AbortController();
  runs.set(answer, controller);
  // Older turns lose what only the last one offers.
  refresh(...conversation.turns.slice(-2));
  await runAnswer(answer, promptOf(conversation, turn, answer), panel.fingerprintOf(answer.model), controller.signal, () =>
    refresh(turn),
  );
  runs.delete(answer);
  if (!conversation.turns.includes(turn)) return; // a new chat began meanwhile
  refresh(turn);
  save();
  if (answer.error?.status === 401) askForKey();
  if (!isBusy()) finished(turn);
}

function finished(turn) {
  const focused = document.activeElement;
  const idle = focused === document.body || focused === $("stop"); // whoever pressed Stop has lost the button
  if (isVotable(turn)) {
    draw(); // the vote must be there to take the focus
    if (idle) views.get(turn).vote.focus({ preventScroll: true });
    $("status").textContent = "Both answers are complete. Vote with 1, 2 or 0 for a tie.";
  } else if (idle) {
    $("prompt").focus();
  }
}

function send() {
  const text = $("prompt").value.trim();
  const settings = panel.read();
  if (!text || !settings || !ready || isBusy() || isUndecided(lastTurn())) return;
  conversation.settings = settings;
  const turn = newTurn(text, settings.compare);
  const specs = settings.compare ? sides(settings) : [settings];
  turn.answers = specs.map((spec) => newAnswer(spec, settings));
  conversation.turns.push(turn);
  message.clear();
  addView(turn);
  views.get(turn).update();
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  for (const answer of turn.answers) run(turn, answer);
  save();
}

function stop() {
  for (const controller of runs.values()) controller.abort();
}

function regenerate(turn) {
  const settings = panel.read();
  if (!settings || isBusy()) return;
  const version = turn.answers.length;
  const answer = newAnswer({ ...settings, seed: versionSeed(settings.seed, version) }, settings);
  turn.shown = turn.answers.push(answer) - 1;
  run(turn, answer);
}

/** Asks again in place of an answer that failed, with the settings as they are now: they may have been the reason. */
function retry(turn, answer) {
  const settings = panel.read();
  if (!settings || runs.has(answer)) return;
  const { system, temperature, maxTokens } = settings;
  if (!turn.compare) {
    const seed = versionSeed(settings.seed, turn.answers.indexOf(answer));
    Object.assign(answer, { system, temperature, maxTokens, seed, model: settings.model });
  } else if (turn.answers.every((one) => ["error", "stopped"].includes(one.status))) {
    // Both sides are compared under one setting; a side that is complete fixes it.
    for (const one of turn.answers) Object.assign(one, { system, temperature, maxTokens });
  }
  run(turn, answer);
}

function page(turn, step) {
  turn.shown = Math.min(Math.max(turn.shown + step, 0), turn.answers.length - 1);
  refresh(turn);
  save();
}

// ---- the controls

$("stop").addEventListener("click", stop);
$("new-chat").addEventListener("click", () => {
  showConversation(newConversation(conversation.settings));
  save();
  $("prompt").focus();
});
$("link").addEventListener("click", async () => {
  const url = linkTo(conversation);
  if (url === null) toast("This conversation is too long for a link.");
  else toast((await copyText(url)) ? "Link copied" : "The browser refused to copy the link.");
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stop();
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const choice = { 1: 0, 2: 1, 0: "tie" }[event.key];
  if (choice !== undefined && isVotable(lastTurn())) rating.vote(lastTurn(), choice);
});
window.addEventListener("pagehide", save); // an answer that still streams is kept as far as it is
window.addEventListener("hashchange", () => isLink() && showLink());

function showLink() {
  const linked = openedLink();
  if (linked === null) toast("This link is damaged: no conversation in it.");
  else showConversation(linked);
  save();
}

// ---- the start

const askForKey = keyForm(loadModels);
$("load-retry").addEventListener("click", loadModels);

async function loadModels() {
  $("load-error").hidden = true;
  try {
    panel.offer(await listModels());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) {
      askForKey();
    } else {
      $("load-error-text").textContent = `The models could not be listed. ${error.message}`;
      $("load-error").hidden = false;
    }
    return;
  }
  ready = true;
  const missing = panel.show(conversation.settings);
  if (missing.length) toast(`Not served here: ${missing.join(", ")}`);
  if (panel.isValid()) conversation.settings = panel.read();
  refresh();
  $("prompt").focus();
}

showConversation(kept() ?? newConversation());
if (isLink()) showLink();
loadModels();
