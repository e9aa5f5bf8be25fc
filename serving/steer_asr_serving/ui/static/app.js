// The page: takes a recording, asks the server, shows what it says.

import * as api from "./api.js";
import { canRecord, nameFor, record } from "./recorder.js";
import { snippets } from "./snippets.js";
import { percent, Timeline } from "./timeline.js";
import { fillTable, leftOut, showTexts } from "./transcripts.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 120; // after the slider's last move
const METADATA_MS = 3000;

const timeline = new Timeline($("timeline"), $("player"));
let server = null; // its settings
let current = null; // {file, name, analysis, steered, abort}
let recording = null;
let waiting = 0;

async function start() {
  addTheme();
  addKey();
  addFiles();
  addRecorder();
  addSteering();
  addCopying();
  await connect();
}

/** Asks for the server's settings, and for a key if it wants one. */
async function connect() {
  try {
    server = await api.settings();
  } catch (refused) {
    say(refused);
    return;
  }
  $("key-form").hidden = true;
  $("change-key").hidden = !api.hasKey();
  $("version").textContent = `steer_asr ${server.version}.`;
  $("limits").textContent = `or drop one here: up to ${server.max_audio_s} seconds and ${size(server.max_upload_bytes)}`;
  fill($("model"), server.models.map(({ id }) => id));
  modelChosen();
}

function addTheme() {
  const root = document.documentElement;
  $("theme").value = root.dataset.theme;
  $("theme").addEventListener("change", () => {
    root.dataset.theme = $("theme").value;
    try {
      localStorage.setItem("steer-asr-theme", root.dataset.theme);
    } catch {
      // Storage is off; the choice then lasts as long as the page.
    }
    timeline.draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.draw());
}

function addKey() {
  $("change-key").addEventListener("click", askForKey);
  $("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    api.useKey($("key").value, $("keep-key").checked);
    $("key").value = "";
    say("");
    await connect();
    if (server) $("file").focus();
  });
}

function askForKey() {
  $("key-form").hidden = false;
  $("key").focus();
}

function addFiles() {
  const drop = $("drop");
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same file can be chosen again
    if (file) open(file, file.name);
  });
  for (const event of ["dragover", "dragenter"]) {
    document.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? drop.classList.remove("over"));
  document.addEventListener("drop", (dropped) => {
    dropped.preventDefault();
    drop.classList.remove("over");
    const [file] = dropped.dataTransfer.files;
    if (file) open(file, file.name);
  });
}

function addRecorder() {
  const button = $("record");
  if (!canRecord()) {
    button.disabled = true;
    button.title = "Browsers record only from pages on this machine, or over HTTPS.";
    return;
  }
  button.addEventListener("click", async () => {
    if (recording) {
      recording.stop();
      return;
    }
    if (!server) return;
    say("");
    try {
      recording = await record(server.max_audio_s, (seconds) => ($("recorded").textContent = `${seconds.toFixed(0)} s`));
    } catch (error) {
      const denied = error.name === "NotAllowedError";
      say(new api.Refused(denied ? "The browser may not use the microphone." : "There is no microphone to record from."));
      return;
    }
    button.textContent = "Stop";
    button.classList.add("on");
    say("Recording…");
    const sound = await recording.done;
    recording = null;
    button.textContent = "Record";
    button.classList.remove("on");
    $("recorded").textContent = "";
    await open(sound, nameFor(sound));
  });
}

function addSteering() {
  $("model").addEventListener("change", () => {
    modelChosen();
    if (current) open(current.file, current.name);
  });
  $("pack").addEventListener("change", () => steer());
  $("strength").addEventListener("input", () => {
    showStrength();
    clearTimeout(waiting);
    waiting = setTimeout(steer, PAUSE_MS);
  });
}

function addCopying() {
  for (const what of ["curl", "python"]) {
    $(`copy-${what}`).addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText($(what).textContent);
        say("Copied.");
      } catch {
        getSelection().selectAllChildren($(what));
        say("The browser keeps the clipboard to itself; the text is selected, copy it with Ctrl+C.");
      }
    });
  }
}

const model = () => server.models.find(({ id }) => id === $("model").value);

function modelChosen() {
  const { packs, max_steer: most, strength } = model();
  fill($("pack"), packs);
  $("pack-choice").hidden = packs.length < 2;
  $("strength").max = most;
  $("strength").value = strength;
  $("strength").disabled = !packs.length;
  showStrength();
}

function showStrength() {
  const said = percent($("strength").value);
  $("strength-said").textContent = said;
  $("strength").setAttribute("aria-valuetext", said);
}

/** Takes a recording in, in place of the one that is there. */
async function open(file, name) {
  current?.abort.abort();
  const own = (current = { file, name, analysis: null, steered: null, abort: new AbortController() });
  say("");
  for (const id of ["results", "where", "segments", "requests"]) $(id).hidden = true;
  if (!server) {
    say(new api.Refused("The server has not said yet what it offers."));
    return;
  }
  try {
    await show(own);
    await check(own);
    say("Stock Whisper is listening…");
    own.analysis = await api.analyze(file, name, model().id, own.abort.signal);
    if (own !== current) return;
    render();
    await steer();
  } catch (refused) {
    if (own === current && refused.name !== "AbortError") say(refused);
  }
}

/** Puts the recording into the player. */
async function show({ file, name }) {
  const player = $("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(file);
  $("name").textContent = name;
  $("sound").hidden = false;
}

/** Raises what the server would say of a file over its limits, before it is sent. */
async function check({ file }) {
  if (file.size > server.max_upload_bytes) {
    throw new api.Refused(`This file has ${size(file.size)}; the server takes up to ${size(server.max_upload_bytes)}.`);
  }
  const seconds = await duration($("player"));
  if (seconds > server.max_audio_s + 0.5) {
    throw new api.Refused(`This is ${seconds.toFixed(0)} s long; the page takes up to ${server.max_audio_s} s.`);
  }
}

/** The player's length in seconds; NaN where the browser cannot tell, which the server can. */
function duration(player) {
  return new Promise((resolve) => {
    const tell = () => resolve(player.duration);
    if (player.readyState) return tell();
    for (const event of ["loadedmetadata", "error"]) player.addEventListener(event, tell, { once: true });
    return setTimeout(tell, METADATA_MS);
  });
}

/** Asks for the steered transcript at the slider's strength. One question at a time; the last wish is what counts. */
async function steer() {
  const own = current;
  if (!own?.analysis) return;
  if (!model().packs.length) {
    say("This server has no pack for the model, so there is nothing to compare with.");
    return;
  }
  own.again = own.steering ?? false;
  if (own.steering) return;
  own.steering = true;
  try {
    do {
      own.again = false;
      $("steered-panel").classList.add("waiting");
      say("Steering…");
      const asked = performance.now();
      own.steered = await steered(own);
      if (own !== current) return;
      const seconds = (performance.now() - asked) / 1000;
      $("took").textContent = `${seconds.toFixed(2)} s${own.steered.encoder === "kept" ? ", encoder output kept" : ""}`;
      say("");
      render();
    } while (own.again);
  } catch (refused) {
    if (own === current && refused.name !== "AbortError") say(refused);
  } finally {
    own.steering = false;
    if (own === current) $("steered-panel").classList.remove("waiting");
  }
}

/** The server's answer; where it no longer keeps the recording, that is sent once more. */
async function steered(own) {
  const ask = () => api.resteer(own.analysis.id, Number($("strength").value), $("pack").value, own.abort.signal);
  try {
    return await ask();
  } catch (refused) {
    if (refused.code !== "recording_not_kept") throw refused;
    own.analysis = await api.analyze(own.file, own.name, model().id, own.abort.signal);
    return ask();
  }
}

function render() {
  const { name, analysis, steered: answer } = current;
  const { stock, language } = analysis;
  for (const id of ["results", "where", "segments", "requests"]) $(id).hidden = false;
  $("stock").lang = $("steered").lang = language;
  if (!answer) $("steered").textContent = "…";
  const changes = showTexts($("stock"), $("steered"), stock, answer, language);
  const speaks = answer?.nobody_speaks ?? null;
  $("summary").textContent = changes && speaks !== null ? `${changes} Nobody speaks: ${percent(speaks)}.` : changes;
  timeline.show(analysis, answer, leftOut(stock, answer, language));
  fillTable($("segment-rows"), stock, answer, language, (seconds) => timeline.playFrom(seconds));
  const strength = Number($("strength").value);
  const others = $("pack").value && $("pack").value !== model().packs[0];
  const steering = { steer: others ? `${$("pack").value}@${strength}` : String(strength) };
  const { curl, python } = snippets({ name, model: analysis.model, language, needsKey: api.hasKey(), ...steering });
  $("curl").textContent = curl;
  $("python").textContent = python;
}

/** Tells how it goes, or what went wrong; either in place of what was told before. */
function say(what) {
  const wrong = what instanceof Error;
  $("error").textContent = wrong && what instanceof api.Refused ? what.message : wrong ? "The page failed; its console says why." : "";
  $("status").textContent = wrong ? "" : what;
  if (!wrong) return;
  if (what.status === 401) askForKey();
  if (!(what instanceof api.Refused)) console.error(what);
}

function fill(select, names) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) select.value = before;
}

function size(bytes) {
  return bytes >= 2 ** 20 ? `${Math.round(bytes / 2 ** 20)} MB` : `${Math.round(bytes / 1024)} KB`;
}

await start();
