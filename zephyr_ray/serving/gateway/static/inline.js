// Inline Markdown -> text nodes and elements: code, bold, italic, struck out, links, line breaks.
// One pass from left to right. A delimiter that was found to have no end is remembered, and nesting is bounded, so that
// no text, however hostile, takes more than linear time.

import { el } from "./dom.js";

const MAX_DEPTH = 6;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const LINK_TARGET = /\]\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"\n]*")?\s*\)/y;
const BARE_URL = /https?:\/\/[^\s<>"'`*]+/y;
const STYLES = { "***": "strong", "**": "strong", __: "strong", "~~": "del", "*": "em", _: "em" };

/** Appends the inline content of `text` to `parent`. */
export function appendInline(parent, text, depth = 0, inLink = false) {
  const without = new Set(); // delimiters that do not end anywhere in the rest of this text
  without.label = -1; // where the next "](" is, as far as that is known
  let plain = "";
  const flush = () => {
    if (plain) parent.append(plain);
    plain = "";
  };
  for (let at = 0; at < text.length; ) {
    const found = elementAt(text, at, depth, inLink, without);
    if (found) {
      flush();
      parent.append(found.node);
      at = found.end;
    } else if (text[at] === "\\" && PUNCTUATION.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      // A run of one delimiter that opens nothing is text as a whole: its second half must not open anything either.
      const length = "*_~`".includes(text[at]) ? runLength(text, at) : 1;
      plain += text.slice(at, at + length);
      at += length;
    }
  }
  flush();
}

/** The element that starts at `at`, as {node, end}; null where there is only text. */
function elementAt(text, at, depth, inLink, without) {
  const character = text[at];
  if (character === "\n") return { node: el("br"), end: at + 1 };
  if (character === "`") return codeAt(text, at, without);
  if (depth >= MAX_DEPTH) return null;
  if (character === "*" || character === "_" || character === "~") return emphasisAt(text, at, depth, inLink, without);
  if (inLink) return null;
  if (character === "[" || (character === "!" && text[at + 1] === "[")) return linkAt(text, at, depth, without);
  if (character === "h" && !/\w/.test(text[at - 1] ?? "")) return bareUrlAt(text, at);
  return null;
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function codeAt(text, at, without) {
  const length = runLength(text, at);
  const end = codeEnd(text, at, length, without);
  if (end < 0) return null;
  let code = text.slice(at + length, end - length).replaceAll("\n", " ");
  // One space on both sides lets code begin or end with a backtick.
  if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
  return { node: el("code", {}, code), end };
}

/** Where the code span that opens at `at` with `length` backticks is over; -1 if never. */
function codeEnd(text, at, length, without) {
  const key = `code ${length}`;
  if (without.has(key)) return -1;
  for (let next = text.indexOf("`", at + length); next >= 0; next = text.indexOf("`", next)) {
    const found = runLength(text, next);
    next += found;
    if (found === length) return next;
  }
  without.add(key);
  return -1;
}

function emphasisAt(text, at, depth, inLink, without) {
  const run = runLength(text, at);
  const mark = text.slice(at, at + run);
  const start = at + run;
  const tag = STYLES[mark];
  if (!tag || without.has(mark) || !/\S/.test(text[start] ?? "")) return null;
  // snake_case names are not italic.
  if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) return null;
  const end = emphasisEnd(text, start, mark, without);
  if (end < 0) {
    without.add(mark);
    return null;
  }
  const node = el(tag);
  let inside = node;
  if (mark === "***") node.append((inside = el("em")));
  appendInline(inside, text.slice(start, end), depth + 1, inLink);
  return { node, end: end + run };
}

/** Where `mark` comes again after a character that is no space, outside code and not as part of a longer run. */
function emphasisEnd(text, start, mark, without) {
  for (let at = start; at < text.length; ) {
    if (text[at] === "\\") {
      at += 2;
    } else if (text[at] === "`") {
      const length = runLength(text, at);
      const end = codeEnd(text, at, length, without);
      at = end < 0 ? at + length : end;
    } else if (text[at] === mark[0]) {
      const run = runLength(text, at);
      // "**bold *and italic***": the last run ends both; the inner mark takes the first character, the outer the rest.
      const fits = run === mark.length || (run === 3 && mark.length < 3 && at > start);
      const after = mark[0] !== "_" || !/\w/.test(text[at + run] ?? "");
      if (fits && after && /\S/.test(text[at - 1])) return at + (run === 3 && mark.length === 2 ? 1 : 0);
      at += run;
    } else {
      at += 1;
    }
  }
  return -1;
}

/** [label](target). An image is a link too: the page loads nothing from elsewhere. */
function linkAt(text, at, depth, without) {
  const open = text[at] === "!" ? at + 1 : at;
  if (without.has("](")) return null;
  if (without.label < open) without.label = text.indexOf("](", open);
  const close = without.label;
  if (close < 0) {
    without.add("](");
    return null;
  }
  // An earlier bracket is text when another one opens before the label ends.
  if (text.lastIndexOf("[", close) !== open) return null;
  LINK_TARGET.lastIndex = close;
  const match = LINK_TARGET.exec(text);
  const node = match && anchor(match[1]);
  if (!node) return null;
  const label = text.slice(open + 1, close);
  appendInline(node, label || match[1], depth + 1, true);
  return { node, end: LINK_TARGET.lastIndex };
}

function bareUrlAt(text, at) {
  BARE_URL.lastIndex = at;
  const match = BARE_URL.exec(text);
  if (!match) return null;
  // The full stop, or the bracket, after an address belongs to the sentence.
  let url = match[0].replace(/[.,:;!?\]]{1,8}$/, "");
  if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1);
  const node = anchor(url);
  if (!node) return null;
  node.append(url);
  return { node, end: at + url.length };
}

/** A link to another site in a new tab; null for any scheme but http, https and mailto, and for relative addresses. */
function anchor(target) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return null; // not an absolute address
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  return el("a", { href: url.href, rel: "noopener noreferrer", target: "_blank" });
}
