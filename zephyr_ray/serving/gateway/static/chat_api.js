// The server's API: GET /v1/models, POST /v1/chat/completions as a stream of events, POST /feedback.

const KEY = "api-key";

/** What went wrong, in words for the reader: `message`, and where known `status` and `retryAfter` (text). */
export class ApiError extends Error {
  constructor(message, { status = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The key lives as long as the tab, and in no link. */
export const setApiKey = (key) => sessionStorage.setItem(KEY, key);
export const hasApiKey = () => sessionStorage.getItem(KEY) !== null;

/** The served models, as the server lists them. */
export async function listModels() {
  const response = await call("/v1/models", {});
  const { data } = await response.json();
  return data;
}

/** Stores a row of feedback. The row's id makes a repeated call harmless. */
export async function postFeedback(row) {
  await call("/feedback", post(row));
}

/**
 * Asks for an answer; yields {text}, {fingerprint}, {usage} and {finish} as they arrive.
 *
 * Throws an ApiError for an error body, for an error event in the stream, and for a stream that ends too early; an abort
 * through `signal` throws the DOMException named AbortError.
 */
export async function* streamChat(request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await call("/v1/chat/completions", { ...post(body), signal });
  let finished = false;
  for await (const data of serverEvents(response.body)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ApiError("The server sent an event that is not JSON.");
    }
    if (chunk.error) throw new ApiError(chunk.error.message ?? "The server reported an error.");
    if (chunk.system_fingerprint) yield { fingerprint: chunk.system_fingerprint };
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) {
      finished = true;
      yield { finish: choice.finish_reason };
    }
    if (chunk.usage) yield { usage: chunk.usage };
  }
  if (!finished) throw new ApiError("The connection closed before the answer was complete.");
}

function post(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

async function call(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (!response.ok) throw await httpError(response);
  return response;
}

/** The error of a response; its body is {"error": {"message", ...}}, unless a proxy in between made it. */
async function httpError(response) {
  let message = null;
  try {
    message = (await response.json()).error.message;
  } catch {
    // Not this API's error body: the status has to do.
  }
  const retryAfter = response.headers.get("Retry-After");
  const fallback = `The server answered with status ${response.status}.`;
  return new ApiError(typeof message === "string" && message ? message : fallback, {
    status: response.status,
    retryAfter: retryAfter === null ? null : /^\d+$/.test(retryAfter) ? `in ${retryAfter} s` : `after ${retryAfter}`,
  });
}

/** The data of each server-sent event; a chunk of the network may hold half an event, or half a character. */
async function* serverEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection to the server was lost.");
  } finally {
    reader.cancel().catch(() => {}); // of a stream that failed already
  }
}
