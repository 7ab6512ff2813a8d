// The page: what is typed and chosen, spoken, and measured.

import { Player } from "./player.js";
import { keepKey, models, Refusal, samplesOf, speech, voices } from "./server.js";

const at = (id) => document.getElementById(id);
const UNAUTHORIZED = 401;
let bundles = [];
let speaking = null; // what ends the synthesis and the sound of now

function tell(text) {
  at("state").textContent = text;
}

function show(id, shown = true) {
  at(id).hidden = !shown;
}

// Say what went wrong; without a key that is known, ask for one.
function fail(error) {
  const locked = error instanceof Refusal && error.status === UNAUTHORIZED;
  const first = locked && !at("key").value; // nobody was asked for one yet
  tell("");
  show("problem", !first);
  at("problem").textContent = locked ? "The server does not know this key." : error.message;
  if (locked) {
    show("entrance");
    show("form", false);
    at("key").value = "";
    at("key").focus();
  }
}

function fill(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
}

async function begin() {
  try {
    bundles = await models();
    fill(at("model"), bundles.map((bundle) => bundle.id));
    await choose();
    show("problem", false);
    show("entrance", false);
    show("form");
    tell("");
  } catch (error) {
    fail(error);
  }
}

async function choose() {
  const model = at("model").value;
  const names = await voices(model);
  if (model === at("model").value) fill(at("voice"), names);
}

function count() {
  const { value, maxLength } = at("text");
  at("count").textContent = `${value.length} of ${maxLength}`;
}

async function speak() {
  stop();
  const start = performance.now();
  const bundle = bundles.find(({ id }) => id === at("model").value);
  const run = { abort: new AbortController(), player: new Player(bundle.sample_rate) };
  speaking = run;
  at("stop").disabled = false;
  show("problem", false);
  show("results", false);
  tell("Waiting for the first audio");
  try {
    const request = { model: bundle.id, input: at("text").value, voice: at("voice").value || null };
    for await (const event of speech(request, run.abort.signal)) {
      if (speaking !== run) return; // it was stopped
      const seconds = (performance.now() - start) / 1000;
      if (event.type === "speech.audio.done") {
        finished(run.player, seconds, event);
      } else {
        if (!run.player.samples) begun(seconds);
        run.player.add(samplesOf(event));
        progress(run.player);
      }
    }
    tell("Playing the rest");
    await run.player.heard();
    if (speaking === run) end("Done");
  } catch (error) {
    if (speaking !== run) return;
    end("");
    fail(error);
  }
}

function begun(seconds) {
  at("first").textContent = `${seconds.toFixed(2)} s`;
  at("factor").textContent = "–";
  show("kept", false);
  show("stages", false);
  show("results");
  tell("Speaking");
}

function progress(player) {
  at("audio").textContent = `${player.seconds.toFixed(1)} s`;
  at("silence").textContent = player.silence
    ? `${player.silence.toFixed(1)} s of silence in between`
    : "without a gap";
}

function finished(player, seconds, { synthesis }) {
  at("factor").textContent = (seconds / player.seconds).toFixed(2);
  show("kept", !synthesis);
  show("stages", Boolean(synthesis));
  if (!synthesis) return;
  const stages = { "waiting for a turn": synthesis.queued_seconds, ...synthesis.stages };
  const longest = Math.max(...Object.values(stages));
  const rows = Object.entries(stages).sort(([, one], [, other]) => other - one);
  at("stages").tBodies[0].replaceChildren(...rows.map(([name, took]) => row(name, took, longest)));
}

function row(name, seconds, longest) {
  const made = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name.replaceAll("_", " ");
  const share = made.insertCell();
  share.className = "wide";
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.width = `${(100 * seconds) / longest}%`;
  share.append(bar);
  made.insertCell().textContent = seconds.toFixed(2);
  made.prepend(head);
  return made;
}

function end(said) {
  speaking.player.stop();
  speaking = null;
  if (document.activeElement === at("stop")) at("speak").focus();
  at("stop").disabled = true;
  tell(said);
}

function stop() {
  if (!speaking) return;
  speaking.abort.abort();
  end("Stopped");
}

at("entrance").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(at("key").value.trim());
  begin();
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  speak();
});
at("model").addEventListener("change", () => choose().catch(fail));
at("stop").addEventListener("click", stop);
at("text").addEventListener("input", count);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !at("form").hidden) {
    event.preventDefault();
    at("form").requestSubmit();
  }
});
count();
begin();
