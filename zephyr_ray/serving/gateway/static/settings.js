// The settings panel and the model pickers: controls <-> the conversation's settings.

import { FALLBACK_MAX_TOKENS } from "./conversation.js";
import { el } from "./dom.js";

const $ = (id) => document.getElementById(id);

/** Wires the controls; `changed()` is called after the reader changed one. */
export function settingsPanel(changed) {
  const form = $("settings");
  const toggle = $("settings-toggle");
  const compare = $("compare");
  let models = [];

  const open = (isOpen) => {
    form.hidden = !isOpen;
    toggle.setAttribute("aria-expanded", String(isOpen));
  };
  toggle.addEventListener("click", () => open(form.hidden));
  // Enter in a number field must not submit the panel; the policy of the page forbids form targets anyway.
  form.addEventListener("submit", (event) => event.preventDefault());
  compare.addEventListener("click", () => {
    compare.setAttribute("aria-pressed", String(compare.getAttribute("aria-pressed") !== "true"));
    showPickers();
    changed();
  });
  for (const id of ["model", "other-model"]) {
    $(id).addEventListener("change", () => {
      showPickers();
      changed();
    });
  }
  form.addEventListener("input", changed);

  function showPickers() {
    const comparing = compare.getAttribute("aria-pressed") === "true";
    $("other-picker").hidden = !comparing;
    for (const [id, label] of [["model", "fingerprint"], ["other-model", "other-fingerprint"]]) {
      const fingerprint = fingerprintOf($(id).value);
      $(label).hidden = !fingerprint;
      // Enough to tell two apart; the whole of it, with the name of the hash, is in the title.
      $(label).textContent = fingerprint ? fingerprint.split(":").at(-1).slice(0, 12) : "";
      $(label).title = fingerprint ? `Fingerprint ${fingerprint}` : "";
    }
  }

  const fingerprintOf = (id) => models.find((model) => model.id === id)?.fingerprint ?? null;
  const served = (id) => models.some((model) => model.id === id);

  return {
    fingerprintOf,

    /** Offers the models the server lists. */
    offer(listed) {
      models = listed;
      for (const id of ["model", "other-model"]) {
        $(id).replaceChildren(...models.map((model) => el("option", { value: model.id }, model.id)));
        $(id).disabled = !models.length;
      }
    },

    /** Shows `settings`; returns the names of the models in it that are not served here. */
    show(settings) {
      const first = models[0]?.id;
      $("model").value = served(settings.model) ? settings.model : (first ?? "");
      // Without a choice the second side is the next model, or a second sample of the only one.
      $("other-model").value = served(settings.other) ? settings.other : (models[1]?.id ?? first ?? "");
      compare.setAttribute("aria-pressed", String(settings.compare));
      $("system").value = settings.system;
      $("temperature").value = settings.temperature;
      $("max-tokens").value = settings.maxTokens ?? defaultMaxTokens(models);
      $("seed").value = settings.seed ?? "";
      showPickers();
      return [settings.model, settings.other].filter((id) => id !== null && !served(id));
    },

    /** The settings as the controls have them; null, and the panel shows what is wrong, if one has no valid value. */
    read() {
      if (!form.checkValidity()) {
        open(true);
        form.reportValidity();
        return null;
      }
      return {
        model: $("model").value || null,
        other: $("other-model").value || null,
        compare: compare.getAttribute("aria-pressed") === "true",
        system: $("system").value.trim(),
        temperature: $("temperature").valueAsNumber,
        maxTokens: $("max-tokens").valueAsNumber,
        seed: $("seed").value === "" ? null : $("seed").valueAsNumber,
      };
    },

    isValid: () => form.checkValidity(),
  };
}

/** Half of a short context: the prompt needs room too. */
function defaultMaxTokens(models) {
  const lengths = models.map((model) => model.max_model_len).filter(Number.isInteger);
  return Math.max(1, Math.min(FALLBACK_MAX_TOKENS, ...lengths.map((length) => Math.floor(length / 2))));
}
