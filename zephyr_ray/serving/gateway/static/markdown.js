// Markdown -> DOM, block by block, by createElement and text nodes only: raw HTML in an answer shows as text.

import { copyButton, el } from "./dom.js";
import { appendInline } from "./inline.js";

const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s|$)/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)/;
const TABLE_RULE = /^\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?)?$|^\|\s*:?-+:?$/;

const sources = new WeakMap(); // block element -> the lines it was made from

/**
 * Shows `text` in `container`. Blocks that did not change since the last call keep their elements: an answer that
 * streams costs its last block for each update, and a selection in what is already there survives.
 */
export function renderMarkdown(container, text) {
  const blocks = splitBlocks(text.split("\n"));
  blocks.forEach((block, index) => {
    const present = container.children[index];
    const source = block.lines.join("\n");
    if (present && sources.get(present) === source) return;
    const made = blockElement(block, 0);
    sources.set(made, source);
    if (present) present.replaceWith(made);
    else container.append(made);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
}

/** Lines -> blocks {type, lines}. Every block type ends where its own rule says, so one pass is enough. */
function splitBlocks(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const type = blockType(lines, at);
    const end = ENDS[type](lines, at);
    blocks.push({ type, lines: lines.slice(at, end) });
    at = end;
  }
  return blocks;
}

function blockType(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return "fence";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && TABLE_RULE.test((lines[at + 1] ?? "").trim())) return "table";
  return "paragraph";
}

const ENDS = {
  fence(lines, at) {
    const mark = FENCE.exec(lines[at])[1];
    const closes = (line) => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "");
    for (let next = at + 1; next < lines.length; next += 1) if (closes(lines[next])) return next + 1;
    return lines.length; // still streaming, or never closed
  },
  heading: (lines, at) => at + 1,
  rule: (lines, at) => at + 1,
  quote: (lines, at) => endWhere(lines, at, (line) => !QUOTE.test(line)),
  list(lines, at) {
    const indent = ITEM.exec(lines[at])[1].length;
    const ordered = isOrdered(lines[at]);
    for (let next = at + 1; next < lines.length; next += 1) {
      const line = lines[next];
      if (!line.trim() || indentOf(line) >= indent + 2) continue;
      if (ITEM.test(line) && !RULE.test(line)) {
        if (isOrdered(line) !== ordered) return next;
        continue;
      }
      // Text right under an item belongs to it; after an empty line it is a paragraph of its own.
      if (!lines[next - 1].trim() || blockType(lines, next) !== "paragraph") return next;
    }
    return lines.length;
  },
  table: (lines, at) => endWhere(lines, at + 1, (line) => !line.includes("|")),
  paragraph(lines, at) {
    for (let next = at + 1; next < lines.length; next += 1) {
      if (!lines[next].trim() || blockType(lines, next) !== "paragraph") return next;
    }
    return lines.length;
  },
};

function endWhere(lines, at, stops) {
  for (let next = at + 1; next < lines.length; next += 1) if (stops(lines[next])) return next;
  return lines.length;
}

const indentOf = (line) => line.length - line.trimStart().length;
const isOrdered = (line) => /\d/.test(ITEM.exec(line)[2]);

function blockElement({ type, lines }, depth) {
  if (type === "fence") return fence(lines);
  if (type === "heading") return heading(lines[0]);
  if (type === "rule") return el("hr");
  // Very deep nesting is shown as the text that it is.
  if (type === "quote" && depth < MAX_DEPTH) {
    return withBlocks(el("blockquote"), lines.map((line) => line.replace(QUOTE, "")), depth + 1);
  }
  if (type === "list" && depth < MAX_DEPTH) return list(lines, depth);
  if (type === "table") return table(lines);
  return inlineElement("p", lines.map((line) => line.trimStart()).join("\n").trimEnd());
}

function withBlocks(parent, lines, depth) {
  for (const block of splitBlocks(lines)) parent.append(blockElement(block, depth));
  return parent;
}

function inlineElement(tag, text) {
  const element = el(tag);
  appendInline(element, text);
  return element;
}

function fence(lines) {
  const [, mark, language] = FENCE.exec(lines[0]);
  const last = lines.at(-1).trim();
  const closed = lines.length > 1 && last.startsWith(mark) && !last.replaceAll(mark[0], "");
  const code = lines.slice(1, closed ? -1 : undefined).join("\n");
  const head = el("div", { class: "code-head" }, el("span", {}, language || "text"), copyButton(() => code, "Copy code"));
  // A block that is wider than the page scrolls, and what scrolls must be reachable by keyboard.
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0" }, el("code", {}, code)));
}

function heading(line) {
  const [whole, marks] = HEADING.exec(line);
  const text = line.slice(whole.length).trim();
  // The page has the first level, and "You" and "Answer" the second.
  return inlineElement(`h${Math.min(marks.length + 2, 6)}`, text);
}

function list(lines, depth) {
  const ordered = isOrdered(lines[0]);
  const element = el(ordered ? "ol" : "ul");
  if (ordered) {
    const first = Number.parseInt(lines[0].trimStart(), 10);
    if (first !== 1) element.start = first;
  }
  for (const item of splitItems(lines)) {
    const entry = el("li");
    for (const block of splitBlocks(item)) {
      // The first paragraph of an item stands in the item itself: lists stay tight.
      if (block.type === "paragraph" && !entry.hasChildNodes()) appendInline(entry, block.lines.join("\n").trim());
      else entry.append(blockElement(block, depth + 1));
    }
    element.append(entry);
  }
  return element;
}

/** The lines of each item without its marker and without the indent that follows from it. */
function splitItems(lines) {
  const indent = ITEM.exec(lines[0])[1].length;
  const items = [];
  let offset = 0;
  for (const line of lines) {
    const marker = ITEM.exec(line);
    if (marker && marker[1].length < indent + 2) {
      offset = marker[0].length;
      items.push([line.slice(offset)]);
    } else {
      items.at(-1).push(line.slice(Math.min(offset, indentOf(line))));
    }
  }
  return items;
}

function table(lines) {
  const [head, , ...body] = lines.map(cells);
  const align = cells(lines[1]).map((rule) => (rule.endsWith(":") ? (rule.startsWith(":") ? "center" : "right") : null));
  const row = (tag, texts) => {
    const element = el("tr");
    head.forEach((_, index) => {
      const cell = inlineElement(tag, texts[index] ?? "");
      if (align[index]) cell.className = align[index];
      element.append(cell);
    });
    return element;
  };
  const made = el("table", {}, el("thead", {}, row("th", head)), el("tbody", {}, ...body.map((texts) => row("td", texts))));
  return el("div", { class: "table", tabindex: "0" }, made);
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}
