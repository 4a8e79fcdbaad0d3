// Answer -> the same answer with its text, as it streams: the only place that writes into an answer.

import { ApiError, streamChat } from "./chat_api.js";

/** Streams `answer` for `messages`; calls `changed` after every change. Never throws for what the server did. */
export async function runAnswer(answer, messages, listedFingerprint, signal, changed) {
  Object.assign(answer, { content: "", status: "streaming", error: null, finish: null, stats: null, fingerprint: null });
  changed();
  const request = {
    model: answer.model,
    messages,
    temperature: answer.temperature,
    max_tokens: answer.maxTokens,
    ...(answer.seed === null ? {} : { seed: answer.seed }),
  };
  const started = performance.now();
  let first = null;
  let last = null;
  let usage = null;
  try {
    for await (const event of streamChat(request, signal)) {
      if (event.text) {
        last = performance.now();
        first ??= last;
        answer.content += event.text;
      }
      if (event.fingerprint) answer.fingerprint = event.fingerprint;
      if (event.finish) answer.finish = event.finish;
      if (event.usage) usage = event.usage;
      if (event.text) changed();
    }
    answer.status = "done";
  } catch (error) {
    if (signal.aborted) {
      answer.status = "stopped";
    } else if (error instanceof ApiError) {
      answer.status = "error";
      answer.error = { message: error.message, retryAfter: error.retryAfter, status: error.status };
    } else {
      answer.status = "error";
      answer.error = { message: "This page failed to read the answer.", retryAfter: null, status: null };
      console.error(error);
    }
  }
  answer.fingerprint ??= listedFingerprint;
  answer.stats = stats(started, first, last, usage);
  changed();
}

/** Times in milliseconds; the rate leaves out the first token, whose time is mostly the prompt's. */
function stats(started, first, last, usage) {
  const completion = usage?.completion_tokens ?? null;
  const seconds = (last - first) / 1000;
  return {
    promptTokens: usage?.prompt_tokens ?? null,
    completionTokens: completion,
    firstMs: first === null ? null : Math.round(first - started),
    perSecond: completion > 1 && seconds > 0 ? (completion - 1) / seconds : null,
  };
}
