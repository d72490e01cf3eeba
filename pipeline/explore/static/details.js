// All that is known of a sample: measured facts, what was drawn, and the commands that make it again.

import { element, by, short } from "./dom.js";

// `marked`: the place of the tumor that the table shows, null for none.
export function draw(sample, marked) {
  by("facts").replaceChildren(
    ...(sample.tumors.length ? [tumors(sample, marked)] : []),
    ...Object.entries(sample.sections).map(([name, facts]) => section(name, pairs(facts))),
    ...(sample.drawn ? [drawn(sample.drawn)] : []),
    section("again", commands(sample.commands)),
  );
}

function section(name, content, open = true) {
  return element("details", { open, className: `section ${name}` }, element("summary", {}, title(name)), content);
}

const title = (name) => ({ measured: "Sample", stored: "Stored as", drawn: "Drawn parameters", again: "Commands", tumors: "Tumors" })[name] ?? name;

function tumors(sample, marked) {
  const names = Object.keys(sample.tumors[0]);
  const lines = names.map((name) => element("tr", {}, element("th", { scope: "row" }, name), ...sample.tumors.map((tumor, k) => element("td", { className: k === marked ? "marked" : "" }, short(tumor[name])))));
  return section("tumors", element("div", { className: "scroll" }, element("table", { className: "facts" }, ...lines)));
}

function pairs(facts) {
  const lines = Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, short(value))]);
  return element("dl", {}, ...lines);
}

// What was asked for each tumor side by side; of the sample what is not of a tumor.
function drawn(spec) {
  const lists = Object.entries(spec).filter(([, value]) => Array.isArray(value) && value.some((one) => typeof one === "object" && one));
  const rest = Object.fromEntries(Object.entries(spec).filter(([name]) => !lists.some(([list]) => list === name)));
  const tables = lists.map(([name, list]) => {
    const flat = list.map((one) => unfolded(one));
    const keys = [...new Set(flat.flatMap(Object.keys))];
    const lines = keys.map((key) => element("tr", {}, element("th", { scope: "row" }, key), ...flat.map((one) => element("td", {}, short(one[key])))));
    return element("div", { className: "scroll" }, element("table", { className: "facts" }, element("caption", {}, name), ...lines));
  });
  return section("drawn", element("div", {}, ...tables, pairs(rest)), false);
}

function unfolded(record, before = "") {
  return Object.fromEntries(
    Object.entries(record).flatMap(([name, value]) =>
      value && typeof value === "object" && !Array.isArray(value)
        ? Object.entries(unfolded(value, `${before}${name}.`))
        : value === null ? [] : [[before + name, value]],
    ),
  );
}

function commands(list) {
  return element("div", {}, ...Object.entries(list).map(([what, command]) => {
    const copy = element("button", { type: "button", ariaLabel: `Copy: ${what}`, onclick: () => navigator.clipboard?.writeText(command) }, "Copy");
    return element("div", { className: "command" }, element("p", {}, what), copy, element("code", {}, command));
  }));
}
