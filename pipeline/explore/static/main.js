// Wires the page: the address decides what is shown, every control only changes the address.

import { ask } from "./api.js";
import * as charts from "./charts.js";
import * as details from "./details.js";
import { by, complain, element, whole } from "./dom.js";
import * as keys from "./keys.js";
import * as state from "./state.js";
import * as table from "./table.js";
import * as viewer from "./viewer.js";

const DEFAULTS = { view: "all", window: "soft tissue", opacity: "50", twin: "off", swipe: "50" };
let about = null;
let filterNames = [];
let columns = [];
let sample = null;
let named = []; // classes of the labels that are shown
let backwards = false; // the sample before the first of a page is the last of the page before
let latest = { table: 0, charts: 0, sample: 0 };

const setting = (name) => state.get(name, DEFAULTS[name]);

async function start() {
  document.body.dataset.phase = "loading";
  about = await ask("/api/about");
  filterNames = [...about.facts.map((fact) => fact.name), "where"];
  columns = table.columns(about);
  by("title").textContent = about.title;
  by("lines").textContent = about.lines.join(" · ");
  document.title = `${about.title} – phantumor`;
  by("any-tumor").textContent = `A ${about.kind === "dataset" ? "sample" : "case"} is listed when any of its tumors meets the filters on tumors; others in it may not. The table shows its largest tumor that does.`;
  by("where-form").hidden = by("export").hidden = !about.where;
  tools();
  follow();
  const at = state.get("sample");
  await Promise.all([showTable(at), showCharts()]);
  document.body.dataset.phase = "ready";
  if (!at && table.first()) state.set({ sample: table.first() });
  else if (at) showSample();
}

// -- table and histograms ------------------------------------------------------------------------------------------

async function showTable(at = "") {
  const asked = ++latest.table;
  const query = state.query([...filterNames, "sort", "offset"]);
  query.set("limit", table.PAGE);
  if (at) query.set("at", at);
  const answer = await ask(`/api/table?${query}`);
  if (asked !== latest.table) return;
  if (at) state.note("offset", answer.offset ? String(answer.offset) : ""); // or the way back would lead nowhere
  table.head(columns, answer.by_tumor);
  table.body(answer, columns, (id) => state.set({ sample: id }));
  by("count").textContent = `${whole(answer.total)} of ${whole(about.samples)} ${about.kind === "dataset" ? "samples" : "cases"}`;
  by("any-tumor").hidden = !answer.by_tumor;
  by("expression").value = answer.where || "";
  by("where").value = state.get("where");
  by("table").dataset.where = answer.where;
}

async function showCharts() {
  const asked = ++latest.charts;
  const counts = await ask(`/api/charts?${state.query(filterNames)}`);
  if (asked === latest.charts) charts.draw(about.facts, counts);
}

async function filtered() {
  complain(null);
  if (state.get("offset")) return state.set({ offset: null }); // comes back here
  await Promise.all([showTable(), showCharts()]).catch(complain);
}

async function turn(steps) {
  const offset = table.pageAt(steps);
  if (offset === null) return false;
  state.set({ offset: offset ? String(offset) : null });
  return true;
}

// -- the sample ----------------------------------------------------------------------------------------------------

async function showSample() {
  const id = state.get("sample");
  if (!id) return;
  const asked = ++latest.sample;
  by("sample").dataset.phase = "loading";
  try {
    if (viewer.supported()) viewer.prefetch(id, ["image", ...shownLabels()]); // beside the facts, not after them
    else noPictures();
    sample = await ask(`/api/sample/${encodeURIComponent(id)}`);
    if (asked !== latest.sample) return;
    table.mark(id);
    by("sample-name").textContent = sample.id;
    details.draw(sample, about.kind === "dataset" ? table.tumorOf(id) : null);
    downloads();
    twins();
    await picture(asked);
    complain(null);
  } catch (error) {
    if (asked === latest.sample) complain(error);
  }
  if (asked === latest.sample) by("sample").dataset.phase = "ready";
}

const shownLabels = () => Object.keys(about.labels).filter((name) => state.get(`hide_${name}`) === "");
const settings = () => ({
  view: setting("view"), window: setting("window"), opacity: Number(setting("opacity")), organs: state.get("organs") === "1",
  twin: sample?.layers.includes("healthy") ? setting("twin") : "off", swipe: Number(setting("swipe")), labels: shownLabels(),
});

async function picture(asked = latest.sample) {
  if (!viewer.supported() || !sample) return;
  const classes = await viewer.show(sample.id, settings(), focus(), ({ string }) => (by("place").textContent = string));
  if (asked !== latest.sample) return;
  named = classes.flat().filter(Boolean);
  legend();
  const next = table.neighbor(sample.id, 1);
  if (next) viewer.prefetch(next, ["image", ...shownLabels()]);
}

// The tumor that the table shows, where tumors are filtered, else what is worth looking at first.
function focus() {
  const chosen = about.kind === "dataset" ? sample?.tumors[table.tumorOf(sample.id)] : null;
  return chosen?.center_mm ?? sample?.focus_mm;
}

function noPictures() {
  by("stage-message").hidden = false;
  by("canvas").hidden = true;
  by("stage-message").textContent =
    "This browser shows no WebGL 2, which slices and 3D need. Switch on hardware acceleration, or use another browser; table, filters and facts work, and the NIfTI files above open in any viewer.";
}

// Of what is drawn: organs only where they are.
function legend() {
  const drawn = named.filter(({ id }) => id && (settings().organs || id % 2 === 0)); // even ids are tumors
  const unique = new Map(drawn.map((entry) => [entry.name, entry]));
  by("legend").replaceChildren(
    ...[...unique.values()].map(({ name, color }) => {
      const dot = element("span", { className: "dot" });
      dot.style.background = color;
      return element("li", {}, dot, name);
    }),
  );
}

function downloads() {
  const links = sample.layers.filter((name) => name !== "difference").map((name) => element("a", { href: `/api/sample/${encodeURIComponent(sample.id)}/${name}.nii.gz`, download: "" }, name));
  by("downloads").replaceChildren("NIfTI: ", ...links.flatMap((link, k) => (k ? [" ", link] : [link])));
}

function twins() {
  by("twins").hidden = !sample.layers.includes("healthy");
}

async function neighbor(steps) {
  const id = table.neighbor(state.get("sample"), steps);
  if (id) return state.set({ sample: id });
  const offset = table.pageAt(Math.sign(steps));
  if (offset === null) return;
  backwards = steps < 0;
  state.set({ offset: offset ? String(offset) : null, sample: null });
}

async function goTo(name) {
  try {
    const found = await ask(`/api/sample/${encodeURIComponent(name.trim())}`);
    await showTable(found.id);
    state.set({ sample: found.id });
    complain(null);
  } catch (error) {
    complain(error);
  }
}

// -- controls ------------------------------------------------------------------------------------------------------

function tools() {
  const group = (id, entries, name) =>
    by(id).replaceChildren(
      ...Object.entries(entries).map(([value, label]) => element("button", { type: "button", onclick: () => state.set({ [name]: value }), "data-value": value }, label)),
    );
  group("views", viewer.VIEWS, "view");
  group("twins", viewer.TWINS, "twin");
  by("window").replaceChildren(...Object.entries(viewer.WINDOWS).map(([name, [low, high]]) => element("option", { value: name }, `${name} (${low} to ${high} HU)`)));
  const several = Object.keys(about.labels).length > 1;
  by("shown-labels").replaceChildren(
    ...(several ? Object.entries(about.labels) : []).map(([name, label]) =>
      element("label", {}, element("input", { type: "checkbox", checked: state.get(`hide_${name}`) === "", onchange: (event) => state.set({ [`hide_${name}`]: event.target.checked ? null : "1" }) }), ` ${label}`),
    ),
  );
  reflect();
}

// Shows in the controls what the address says.
function reflect() {
  for (const [id, name] of [["views", "view"], ["twins", "twin"]])
    for (const button of by(id).children) button.ariaPressed = String(button.dataset.value === setting(name));
  by("window").value = setting("window");
  by("opacity").value = setting("opacity");
  by("organs").checked = state.get("organs") === "1";
  by("swipe").value = setting("swipe");
}

const step = (name, by_, low, high) => state.set({ [name]: String(Math.min(high, Math.max(low, Number(setting(name)) + by_))) });
const next = (name, entries) => {
  const values = Object.keys(entries);
  state.set({ [name]: values[(values.indexOf(setting(name)) + 1) % values.length] });
};
const copy = (text) => navigator.clipboard?.writeText(text).catch(() => null);

const ACTIONS = [
  { keys: ["j"], text: "next sample", run: () => neighbor(1) },
  { keys: ["k"], text: "previous sample", run: () => neighbor(-1) },
  { keys: ["PageDown"], text: "next page of the table", run: () => turn(1) },
  { keys: ["PageUp"], text: "previous page of the table", run: () => turn(-1) },
  { keys: ["1", "2", "3", "4", "5"], text: "all, axial, coronal, sagittal, 3D", run: (key) => state.set({ view: Object.keys(viewer.VIEWS)[Number(key) - 1] }) },
  { keys: ["ArrowUp", "ArrowDown"], text: "slice up and down", run: (key) => viewer.move(0, 0, key === "ArrowUp" ? 1 : -1) },
  { keys: ["ArrowLeft", "ArrowRight"], text: "crosshair to the patient's right and left", run: (key) => viewer.move(key === "ArrowLeft" ? 1 : -1, 0, 0) },
  { keys: ["a", "p"], text: "crosshair to anterior and posterior", run: (key) => viewer.move(0, key === "a" ? 1 : -1, 0) },
  { keys: ["g"], text: "go to the tumor: the largest, or the largest that meets the filters", run: () => viewer.focusOn(focus()) },
  { keys: ["w"], text: "next window", run: () => next("window", viewer.WINDOWS) },
  { keys: ["[", "]"], text: "label fainter and stronger", run: (key) => step("opacity", key === "[" ? -10 : 10, 0, 100) },
  { keys: ["o"], text: "organs beside tumors", run: () => state.set({ organs: state.get("organs") === "1" ? null : "1" }) },
  { keys: ["t"], text: "sample, healthy twin, swipe, difference", run: () => sample?.layers.includes("healthy") && next("twin", viewer.TWINS) },
  { keys: [",", "."], text: "swipe left and right", run: (key) => step("swipe", key === "," ? -5 : 5, 0, 100) },
  { keys: ["/"], text: "write an expression", run: () => by("where").focus() },
  { keys: ["f"], text: "go to the histograms", run: () => document.querySelector("[data-bar]")?.focus() },
  { keys: ["x"], text: "reset all filters", run: () => reset() },
  { keys: ["e"], text: "copy the expression", run: () => copy(by("expression").value) },
  { keys: ["l"], text: "copy a link to this sample", run: () => copy(location.href) },
  { keys: ["s"], text: "save image and label as NIfTI", run: () => document.querySelectorAll("#downloads a").forEach((link, k) => k < 2 && link.click()) },
  { keys: ["?"], text: "this help", run: () => keys.help() },
];

const reset = () => state.set(Object.fromEntries(filterNames.map((name) => [name, null])));

function wire() {
  keys.wire(ACTIONS);
  by("help-open").onclick = keys.help;
  by("reset").onclick = reset;
  by("back").onclick = () => neighbor(-1);
  by("on").onclick = () => neighbor(1);
  by("copy-link").onclick = () => copy(location.href);
  by("copy-expression").onclick = () => copy(by("expression").value);
  for (const [id, steps] of [["page-first", -Infinity], ["page-back", -1], ["page-on", 1], ["page-last", Infinity]]) by(id).onclick = () => turn(steps);
  by("where-form").onsubmit = (event) => {
    event.preventDefault();
    state.set({ where: by("where").value.trim() });
    by("table").focus();
  };
  by("go").onchange = () => goTo(by("go").value);
  by("window").onchange = () => state.set({ window: by("window").value });
  by("opacity").oninput = () => state.set({ opacity: by("opacity").value });
  by("organs").onchange = () => state.set({ organs: by("organs").checked ? "1" : null });
  by("swipe").oninput = () => state.set({ swipe: by("swipe").value });
}

function follow() {
  state.listen([...filterNames, "sort"], filtered);
  state.listen(["offset"], async (changed) => {
    await showTable().catch(complain);
    const reached = backwards ? table.last() : table.first();
    backwards = false;
    if (!state.get("sample") && reached) state.set({ sample: reached });
  });
  state.listen(["sample"], showSample);
  state.listen(["twin", ...Object.keys(about.labels).map((name) => `hide_${name}`)], () => picture().catch(complain));
  if (viewer.supported()) {
    state.listen(["window", "opacity", "organs"], () => viewer.arrange(settings()).catch(complain));
    state.listen(["organs"], legend);
    state.listen(["view"], () => viewer.turn(settings()).catch(complain));
    state.listen(["swipe"], () => viewer.divide(settings()));
  }
  state.listen(["view", "twin", "window", "opacity", "organs", "swipe"], reflect);
}

wire();
start().catch(complain);
