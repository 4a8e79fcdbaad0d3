// The form that asks for an API key when the server wants one.

import { hasApiKey, setApiKey } from "./chat_api.js";

const $ = (id) => document.getElementById(id);

/** Wires the form; `entered()` is called once there is a new key. Returns the function that shows the form. */
export function keyForm(entered) {
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setApiKey($("key").value.trim());
    $("key-form").hidden = true;
    entered();
  });
  return () => {
    $("key-label").textContent = hasApiKey() ? "The server refused the API key." : "This server asks for an API key.";
    $("key-form").hidden = false;
    $("key").value = "";
    $("key").focus();
  };
}
