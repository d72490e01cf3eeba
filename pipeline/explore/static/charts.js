// Histograms that filter: a list of names with bars, or bars of a number's ranges.

import { element, by, whole } from "./dom.js";
import * as state from "./state.js";

export function draw(facts, counts) {
  const focused = document.activeElement?.dataset?.bar;
  by("charts").replaceChildren(...facts.map((fact) => chart(fact, counts[fact.name])));
  if (focused) [...document.querySelectorAll("[data-bar]")].find((bar) => bar.dataset.bar === focused)?.focus();
}

function chart(fact, counted) {
  const chosen = state.all(fact.name).length > 0;
  const clear = element("button", { type: "button", className: "clear", ariaLabel: `Clear ${fact.label}`, onclick: () => state.set({ [fact.name]: null }) }, "clear");
  const unit = fact.level === "tumor" ? "tumors" : "samples";
  const title = element("h3", {}, fact.label, " ", element("small", {}, unit), ...(chosen ? [clear] : []));
  const body = fact.names ? names(fact, counted, unit) : ranges(fact, counted, unit);
  return element("div", { className: "chart", id: `chart-${fact.name}` }, title, ...body);
}

function names(fact, counted, unit) {
  const most = Math.max(1, ...counted.names.map((entry) => entry.count));
  const chosen = new Set(state.all(fact.name));
  const bars = counted.names.map(({ name, count }) => {
    const bar = element("span", { className: "bar" });
    bar.style.width = `${(100 * count) / most}%`;
    return element(
      "button",
      {
        type: "button", className: "name", role: "checkbox", ariaChecked: String(chosen.has(name)),
        ariaLabel: `${fact.label} ${name}: ${whole(count)} ${unit}`, "data-bar": `${fact.name}=${name}`,
        onclick: () => state.set({ [fact.name]: toggled(chosen, name) }),
      },
      bar, element("span", { className: "text" }, name.replaceAll("_", " ")), element("span", { className: "n" }, whole(count)),
    );
  });
  const more = counted.more ? [element("p", { className: "hint" }, `and ${whole(counted.more)} more; name them above: ${fact.name} = '…'`)] : [];
  return [element("div", { className: "names", role: "group", ariaLabel: fact.label }, ...bars), ...more];
}

function toggled(chosen, name) {
  return chosen.has(name) ? [...chosen].filter((one) => one !== name) : [...chosen, name];
}

function ranges(fact, counted, unit) {
  const { edges, counts } = counted;
  const most = Math.max(1, ...counts);
  const now = chosenRange(fact.name);
  const bars = counts.map((count, k) => {
    const [low, high] = bounds(edges, k);
    const inside = now !== null && low >= now[0] && high <= now[1];
    const bar = element("span", { className: "bar" });
    bar.style.height = `${count ? Math.max(2, (100 * count) / most) : 0}%`;
    const text = `${span(low, high)}: ${whole(count)} ${unit}`;
    return element(
      "button",
      {
        type: "button", className: "range", ariaPressed: String(inside), ariaLabel: `${fact.label} ${text}`, title: text,
        "data-bar": `${fact.name}#${k}`,
        onclick: (event) => state.set({ [fact.name]: chooseRange(now, low, high, event.shiftKey, inside) }),
      },
      bar,
    );
  });
  const ticks = [0, Math.round((edges.length - 1) / 2), edges.length - 1].map((k) => element("span", {}, String(edges[k])));
  return [
    element("div", { className: "bars", role: "group", ariaLabel: fact.label }, ...bars),
    element("div", { className: "ticks", ariaHidden: "true" }, ...ticks),
  ];
}

function bounds(edges, k) {
  return [k === 0 ? -Infinity : edges[k], k === edges.length - 2 ? Infinity : edges[k + 1]];
}

function chosenRange(name) {
  const [low, high] = state.get(name).split("..");
  if (high === undefined) return null;
  return [low === "" ? -Infinity : Number(low), high === "" ? Infinity : Number(high)];
}

function chooseRange(now, low, high, grow, inside) {
  if (now && grow) [low, high] = [Math.min(low, now[0]), Math.max(high, now[1])];
  else if (inside && now[0] === low && now[1] === high) return null;
  const text = (edge) => (Number.isFinite(edge) ? String(edge) : "");
  return `${text(low)}..${text(high)}` === ".." ? null : `${text(low)}..${text(high)}`;
}

function span(low, high) {
  if (!Number.isFinite(low)) return `below ${high}`;
  return Number.isFinite(high) ? `${low} to ${high}` : `${low} and more`;
}
