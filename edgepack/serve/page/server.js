// What the page asks of the server. The key is kept by the browser until the tab is closed.

const KEY = "edgepack-key";

// An answer that is an error: its status, and what the server says of it.
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function checked(answer) {
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Refusal(answer.status, said?.error?.message ?? `the server answered ${answer.status}`);
}

async function asked(path) {
  return (await checked(await fetch(path, { headers: headers() }))).json();
}

// The bundles: {id, sample_rate, …} each.
export async function models() {
  return (await asked("v1/models")).data;
}

// Names of the voices of a bundle, the default first.
export async function voices(model) {
  const found = await asked(`v1/audio/voices?${new URLSearchParams({ model })}`);
  return found.voices.map((voice) => voice.id);
}

// Events of a synthesis as they come, until it is done; fails if it ends before.
export async function* speech(request, signal) {
  const answer = await checked(
    await fetch("v1/audio/speech", {
      method: "POST",
      headers: { ...headers(), "Content-Type": "application/json" },
      body: JSON.stringify({ ...request, response_format: "pcm", stream_format: "sse" }),
      signal,
    }),
  );
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the connection ended before the audio did");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events.map((lines) => JSON.parse(lines.slice("data: ".length)))) {
      if (event.type === "speech.audio.error") throw new Error(event.error.message);
      yield event;
      if (event.type === "speech.audio.done") return;
    }
  }
}

// The samples of an event with audio.
export function samplesOf(event) {
  const text = atob(event.audio);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Int16Array.from({ length: bytes.length / 2 }, (_, at) => view.getInt16(2 * at, true));
}
