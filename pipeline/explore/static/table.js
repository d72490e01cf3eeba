// The table: one page of the samples that meet the filters, in the order of a column.

import { element, by, short, whole } from "./dom.js";
import * as state from "./state.js";

export const PAGE = 100;
let rows = [];
let found = { total: 0, offset: 0 };

export function columns(about) {
  const facts = about.facts.map(({ name, label, level }) => ({ name, label, ofTumor: level === "tumor" && /^(diameter|contrast)/.test(label) }));
  const extra = Object.entries(about.extra).map(([name, label]) => ({ name, label }));
  return [{ name: "index", label: about.kind === "dataset" ? "sample" : "case" }, ...facts, ...extra];
}

// `byTumor`: tumors are filtered, and the largest that meets the filters stands for each sample.
export function head(shown, byTumor) {
  const sort = state.get("sort", "index");
  const cells = shown.map(({ name, label, ofTumor }) => {
    const whose = ofTumor ? (byTumor ? "matching: " : "largest: ") : "";
    const order = sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none";
    const mark = { ascending: " ▲", descending: " ▼", none: "" }[order];
    const turn = () => state.set({ sort: order === "ascending" ? `-${name}` : name, offset: null });
    return element("th", { scope: "col", ariaSort: order }, element("button", { type: "button", onclick: turn, "data-sort": name }, whose + label + mark));
  });
  document.querySelector("thead").replaceChildren(element("tr", {}, ...cells));
}

export function body(answer, shown, open) {
  [found, rows] = [answer, answer.rows];
  const lines = rows.map((row) => {
    const cells = shown.map(({ name }) => element("td", {}, name === "index" ? row.id : short(row[name]).replaceAll("_", name === "case_id" ? "_" : " ")));
    return element("tr", { onclick: () => open(row.id), "data-id": row.id }, ...cells);
  });
  document.querySelector("tbody").replaceChildren(...lines);
  const last = found.offset + rows.length;
  by("page").textContent = rows.length ? `${whole(found.offset + 1)}–${whole(last)} of ${whole(found.total)}` : "no sample meets the filters";
  by("page-back").disabled = by("page-first").disabled = found.offset === 0;
  by("page-on").disabled = by("page-last").disabled = last >= found.total;
  mark(state.get("sample"));
}

export function mark(id) {
  for (const line of document.querySelectorAll("tbody tr")) {
    line.ariaSelected = String(line.dataset.id === id);
    if (line.dataset.id === id) line.scrollIntoView({ block: "nearest" });
  }
}

// Which of its tumors the table shows of a sample, as far as tumors are filtered; null else.
export const tumorOf = (id) => (found.by_tumor ? rows.find((row) => row.id === id)?.tumor ?? null : null);

export const first = () => rows[0]?.id ?? null;
export const last = () => rows.at(-1)?.id ?? null;

// The sample that many lines on; null where another page has to be read first.
export function neighbor(id, steps) {
  const at = rows.findIndex((row) => row.id === id);
  return rows[at < 0 ? 0 : at + steps]?.id ?? null;
}

// Where the page so many pages on starts; null when there is none.
export function pageAt(steps) {
  if (steps === -Infinity) return 0;
  const last = Math.floor(Math.max(0, found.total - 1) / PAGE) * PAGE;
  const start = steps === Infinity ? last : found.offset + steps * PAGE;
  return start >= 0 && start <= last ? start : null;
}
