// A reader's way through the study: name, cases with one answer each, the end. The server says what comes next.

import * as clock from "./clock.js";
import * as viewer from "./viewer.js";

const by = (id) => document.getElementById(id);
const CHOICES = {
  "yes-no": [["real", "Real", "r"], ["synthetic", "Synthetic", "s"], ["unsure", "Unsure", "u"]],
  "2afc": [["left", "Left", "ArrowLeft"], ["right", "Right", "ArrowRight"]],
};
const RETRY_MS = 2000;
const NAMES = { real: "real", synthetic: "synthetic", left: "the left one is synthetic", right: "the right one is synthetic", unsure: "unsure" };

let state = null;
let answer = null;
let confidence = null;
let loadingMs = 0;
let asked = null; // the known name about which it was asked whether it is the reader's own
let phase = "begin"; // begin, loading, reading, sending, feedback, finished
const loaded = new Map(); // "number/side" -> promise of an ArrayBuffer

function say(text) {
  by("message").textContent = text;
  by("message").hidden = !text;
}

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const text = await response.text();
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    throw Object.assign(new Error(text.trim()), { status: response.status });
  }
  if (response.status === 409) return { ...content, refused: true };
  if (!response.ok) throw Object.assign(new Error(content.error), { status: response.status });
  return content;
}

function crop(number, side) {
  const key = `${number}/${side}`;
  if (!loaded.has(key)) {
    const path = `/api/case?${new URLSearchParams({ reader: state.reader, number, side })}`;
    const fetched = fetch(path).then((response) => {
      if (!response.ok) throw new Error(`the case did not load (${response.status}); reload the page`);
      return response.arrayBuffer();
    });
    loaded.set(key, fetched);
    fetched.catch(() => loaded.delete(key));
  }
  return loaded.get(key);
}

function enter(now) {
  phase = now;
  document.body.dataset.phase = now;
  by("begin").hidden = now !== "begin";
  by("finished").hidden = now !== "finished";
  by("reading").hidden = now === "begin" || now === "finished";
  by("submit").disabled = now !== "reading" || !ready();
}

async function next() {
  const screen = state.next;
  by("progress").textContent = `${state.done} of ${state.of} answered`;
  if (!screen) {
    by("practice").hidden = true;
    by("csv").href = `/api/answers.csv?${new URLSearchParams({ reader: state.reader })}`;
    enter("finished");
    return;
  }
  answer = confidence = null;
  enter("loading");
  by("practice").hidden = !screen.practice;
  by("feedback").hidden = true;
  press();
  const began = performance.now();
  const two = state.mode === "2afc";
  try {
    const buffers = await Promise.all(screen.places.map((_, side) => crop(screen.number, side)));
    await viewer.show(buffers, screen.places, state.range_hu, two ? ["Left", "Right"] : []);
  } catch (error) {
    say(error.message);
    return;
  }
  loadingMs = performance.now() - began;
  document.body.dataset.number = screen.number;
  enter("reading");
  by("stage").focus();
  clock.run(true);
  clock.start();
  for (const key of loaded.keys()) if (Number(key.split("/")[0]) < screen.number) loaded.delete(key);
  if (screen.number + 1 < state.of) for (const side of screen.places.keys()) crop(screen.number + 1, side).catch(() => null);
}

const ready = () => answer !== null && (answer === "unsure" || confidence !== null);

function choose(given) {
  if (phase !== "reading") return;
  answer = given;
  if (given === "unsure") confidence = null;
  press();
}

function sure(level) {
  if (phase !== "reading" || answer === "unsure") return;
  confidence = level;
  press();
}

function press() {
  for (const button of by("answers").children) button.ariaPressed = String(button.dataset.answer === answer);
  for (const button of by("confidence").querySelectorAll("button")) {
    button.ariaPressed = String(Number(button.dataset.level) === confidence);
    button.disabled = answer === "unsure";
  }
  viewer.choose({ left: 0, right: 1 }[answer] ?? -1);
  by("submit").disabled = phase !== "reading" || !ready();
}

async function submit() {
  if (phase !== "reading" || !ready()) return;
  const time = clock.stop();
  clock.run(false);
  enter("sending");
  const given = {
    reader: state.reader, number: state.next.number, answer, confidence, time_ms: Math.round(time), loading_ms: Math.round(loadingMs), slices_seen: viewer.slicesSeen(),
  };
  state = await kept(given);
  if (state.right) feedback(state.right);
  else next();
}

// An answer is sent until the server has it, so that one that restarts loses none.
async function kept(given) {
  for (;;) {
    try {
      const now = await ask("/api/answer", given);
      say(now.refused ? elsewhere(given, now) : "");
      return now;
    } catch (error) {
      say(waiting(error));
      await new Promise((later) => setTimeout(later, RETRY_MS));
    }
  }
}

function waiting(error) {
  if (error.status === 403) return "The study was started anew at an address with another token. This answer is kept here: leave this page open, open the new address in another tab of this browser, and it is sent";
  if (error.status) return `${error.message}. This answer is not kept yet; it is sent again while this page is open`;
  return "The server does not answer. This answer is kept here and sent again; leave the page open";
}

// Of an answer that was not kept, as the reader has gone on in another tab.
function elsewhere(given, now) {
  const on = now.next ? `This tab goes on with case ${now.done + 1} of ${now.of}` : "All cases are answered";
  return `Your last answer was not kept: case ${given.number + 1} of ${now.of} had been answered as “${given.reader}” in another tab or window. ${on}. Close the other tab; if somebody else reads there, each needs a name of their own`;
}

function feedback(right) {
  const said = right === answer ? "Right" : answer === "unsure" ? "You were unsure" : "Wrong";
  by("feedback").innerHTML = "";
  by("feedback").append(`${said}: ${NAMES[right]}.`, document.createElement("br"), "Enter: next case");
  by("feedback").hidden = false;
  enter("feedback");
}

function build() {
  const two = state.mode === "2afc";
  by("question").textContent = two ? "Which lesion is synthetic?" : "Is the lesion at the cross real or synthetic?";
  by("answers").replaceChildren(...CHOICES[state.mode].map(([value, label, key]) => button(label, key.replace("ArrowLeft", "←").replace("ArrowRight", "→").toUpperCase(), { answer: value }, () => choose(value))));
  const levels = [1, 2, 3, 4, 5].map((level) => button("", String(level), { level }, () => sure(level)));
  by("confidence").replaceChildren(label("guess"), ...levels, label("certain"));
}

function button(text, key, data, clicked) {
  const made = document.createElement("button");
  const mark = document.createElement("kbd");
  mark.textContent = key;
  made.append(...(text ? [`${text} `] : []), mark);
  made.type = "button";
  made.ariaPressed = "false";
  Object.assign(made.dataset, data);
  made.addEventListener("click", () => { clicked(); by("stage").focus(); });
  return made;
}

function label(text) {
  const made = document.createElement("span");
  made.textContent = text;
  return made;
}

function key(event) {
  if (phase === "begin" || phase === "finished" || event.ctrlKey || event.metaKey || event.altKey) return;
  const move = event.shiftKey
    ? { ArrowUp: () => viewer.changeWindow(0, 10), ArrowDown: () => viewer.changeWindow(0, -10), ArrowLeft: () => viewer.changeWindow(-20, 0), ArrowRight: () => viewer.changeWindow(20, 0) }
    : {
        ArrowUp: () => viewer.scroll(1), ArrowDown: () => viewer.scroll(-1), PageUp: () => viewer.scroll(5), PageDown: () => viewer.scroll(-5),
        w: viewer.nextWindow, v: viewer.changePlanes, c: viewer.center, h: viewer.toggleCross, "-": () => viewer.changeZoom(1 / 1.25),
        Enter: () => (phase === "feedback" ? next() : submit()),
      };
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const choice = !event.shiftKey && CHOICES[state.mode].find((one) => one[2] === pressed);
  if (event.key === "+" || event.key === "=") viewer.changeZoom(1.25);
  else if (choice) choose(choice[0]);
  else if (/^[1-5]$/.test(pressed)) sure(Number(pressed));
  else if (move[pressed] && phase !== "loading") move[pressed]();
  else return;
  event.preventDefault();
}

async function begin(event) {
  event.preventDefault();
  const years = by("years").value;
  try {
    state = await ask("/api/begin", { name: by("name").value, role: by("role").value, years: years === "" ? null : Number(years) });
  } catch (error) {
    say(error.message);
    return;
  }
  if (state.known && asked !== state.reader) {
    // Two people of one name must not answer as one.
    asked = state.reader;
    say(`A reader of this name has answered ${state.done} of ${state.of}. If that is you, press Enter again to go on; if not, add something to your name`);
    return;
  }
  say("");
  build();
  next();
}

by("begin").addEventListener("submit", begin);
by("submit").addEventListener("click", submit);
by("feedback").addEventListener("click", next);
document.addEventListener("keydown", key);
viewer.listen();
if (document.createElement("canvas").getContext("webgl2") === null) say("This browser has no WebGL 2, which shows the images; use a current Firefox, Chrome, Edge or Safari");
enter("begin");
by("name").focus();
