// Makes elements, identifiers and clipboard copies: what every view needs.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Text children become text nodes: nothing here, and nothing on this page, parses HTML. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A thumb, drawn upwards; the style sheet turns the one that points down. */
export function thumbIcon() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", "M2 7h2.5v6.5H2zM4.5 7.5 7.5 2c1.2 0 1.8.9 1.6 2L8.6 6.5h3.9c.9 0 1.5.8 1.3 1.7l-1 4.2c-.2.7-.7 1.1-1.4 1.1H4.5");
  svg.append(path);
  return svg;
}

/** A version 4 UUID by hand: crypto.randomUUID is missing where the page is served over plain HTTP. */
export function uuid4() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Copies text and says whether it worked. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Permission refused, or the window lost focus: the old way below may still work.
    }
  }
  // Over plain HTTP there is no navigator.clipboard.
  const area = el("textarea", { class: "sr", "aria-hidden": "true" });
  const focused = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}

/** A button that copies what `text()` returns and says so on itself for a moment. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "quiet copy" }, "Copy");
  if (label !== "Copy") button.setAttribute("aria-label", label);
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(text())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}
