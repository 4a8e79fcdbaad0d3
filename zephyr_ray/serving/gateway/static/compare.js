// Two answers to one prompt, blind: who plays, in which order, and what the page may show before the vote.

/** A whole number below `limit` from the system's random source. */
function randomBelow(limit) {
  const highest = Math.floor(2 ** 32 / limit) * limit; // above it the remainder would favour the low numbers
  const [value] = crypto.getRandomValues(new Uint32Array(1));
  return value < highest ? value % limit : randomBelow(limit);
}

/**
 * The two sides as {model, seed}, in the order in which they are shown.
 *
 * Two models get one seed, so that only the model differs; two samples of one model get different seeds.
 */
export function sides({ model, other, seed }) {
  const first = { model, seed };
  const second = { model: other, seed };
  if (model === other) {
    first.seed = seed ?? randomBelow(2 ** 31 - 1);
    second.seed = first.seed + 1;
  }
  return randomBelow(2) ? [first, second] : [second, first];
}

/** Takes the models' names out of a text that is shown before the vote, such as an error message. */
export function withoutNames(text, answers) {
  const names = answers.flatMap(({ model, fingerprint }) => [model, fingerprint]).filter(Boolean);
  // The longest first: one name may be the start of another.
  names.sort((a, b) => b.length - a.length);
  return names.reduce((shown, name) => shown.replaceAll(name, "[model]"), text);
}

/** The index of the answer that continues the conversation after the vote. */
export function continuing(turn, choice) {
  if (choice === 0 || choice === 1) return choice;
  if (choice === "tie") return 0;
  // Skipped: the first that is complete, or at least has a text.
  const complete = turn.answers.findIndex((answer) => answer.status === "done");
  return Math.max(0, complete >= 0 ? complete : turn.answers.findIndex((answer) => answer.content));
}
