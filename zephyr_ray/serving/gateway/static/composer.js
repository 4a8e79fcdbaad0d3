// The field for the next message: it grows with its text, Enter sends, Shift+Enter starts a line.

const MAX_ROWS = 8;

/** Wires the field; `send()` is called to send its text, `typed()` after each change. Returns {clear}. */
export function composer(send, typed) {
  const form = document.getElementById("composer");
  const prompt = document.getElementById("prompt");

  function fit() {
    // The policy of the page allows no style attributes; a row count does the same.
    prompt.rows = 1;
    while (prompt.scrollHeight > prompt.clientHeight + 1 && prompt.rows < MAX_ROWS) prompt.rows += 1;
  }

  prompt.addEventListener("input", () => {
    fit();
    typed();
  });
  prompt.addEventListener("keydown", (event) => {
    // Enter that ends the composition of a character is not meant for us.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
    prompt.focus();
  });
  return {
    clear() {
      prompt.value = "";
      fit();
    },
  };
}
