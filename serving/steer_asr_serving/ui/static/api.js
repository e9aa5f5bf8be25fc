// Talks to the server that the page came from. The key goes into a header, never into an address.

const KEY = "steer-asr-key";
let key = stored();

export class Refused extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const hasKey = () => key !== "";

/** Uses a key from now on; with `keep`, also after a reload of this tab. */
export function useKey(given, keep) {
  key = given.trim();
  try {
    if (keep) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage is off; the key then lasts as long as the page.
  }
}

export const settings = () => ask("settings");

export function analyze(file, name, model, signal) {
  const body = new FormData();
  body.append("model", model);
  body.append("file", file, name);
  return ask("analyze", { method: "POST", body, signal });
}

export function resteer(id, strength, pack, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("resteer", { method: "POST", body: JSON.stringify({ id, strength, pack }), headers, signal });
}

/** Bytes that came in base64. */
export const bytes = (encoded) => Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));

async function ask(what, { headers = {}, ...options } = {}) {
  const authorization = key ? { Authorization: `Bearer ${key}` } : {};
  let answer;
  try {
    answer = await fetch(`ui/api/${what}`, {
      headers: { ...headers, ...authorization },
      credentials: "omit",
      cache: "no-store",
      ...options,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.");
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok || body === null) {
    const { message, code } = body?.error ?? {};
    throw new Refused(message ?? `The server answered ${answer.status} and did not say why.`, answer.status, code);
  }
  return body;
}

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}
