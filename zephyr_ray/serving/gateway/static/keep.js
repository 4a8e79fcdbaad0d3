// The conversation in this tab (it survives a reload) and in a link (it survives anything).
// A link holds it after the #, which browsers do not send: the server sees no conversation in its log.

import { revive } from "./conversation.js";

const KEY = "conversation";
const PREFIX = "#c=";
const MAX_LINK = 500_000; // characters; browsers and messengers cut or refuse longer addresses

/** Stores the conversation for a reload; false if it is too large for that. */
export function keep(conversation) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(conversation));
    return true;
  } catch (error) {
    if (error.name === "QuotaExceededError") return false;
    throw error;
  }
}

/** The conversation of this tab before the reload; null if there is none, or none that this version understands. */
export function kept() {
  const text = sessionStorage.getItem(KEY);
  return text === null ? null : parsed(text, { imported: false });
}

/** The address that reproduces the conversation; null if it would be too long. */
export function linkTo(conversation) {
  const bytes = new TextEncoder().encode(JSON.stringify(conversation));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  const encoded = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const url = `${location.origin}${location.pathname}${PREFIX}${encoded}`;
  return url.length > MAX_LINK ? null : url;
}

export const isLink = () => location.hash.startsWith(PREFIX);

/** The conversation of the link that was opened, null if it is damaged; the address then loses its fragment, so that a
 * reload shows what was said since. */
export function openedLink() {
  const encoded = location.hash.slice(PREFIX.length);
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const binary = atob(encoded.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    return parsed(new TextDecoder("utf-8", { fatal: true }).decode(bytes), { imported: true });
  } catch {
    return null; // not base64url, or not UTF-8
  }
}

function parsed(text, origin) {
  try {
    return revive(JSON.parse(text), origin);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}
