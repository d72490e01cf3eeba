// One key, one action; not while something is typed. `?` lists them.

import { by, element } from "./dom.js";

const NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", PageDown: "PgDn", PageUp: "PgUp" };

export function wire(actions) {
  by("keys").replaceChildren(
    ...actions.flatMap(({ keys, text }) => [
      element("dt", {}, ...keys.map((key) => element("kbd", {}, NAMES[key] ?? key))),
      element("dd", {}, text),
    ]),
  );
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || by("help").open) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = actions.find(({ keys }) => keys.includes(event.key));
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // NiiVue listens on its canvas as well
    action.run(event.key);
  }, { capture: true });
}

const typing = (target) => target.matches?.("input:not([type=checkbox]), select, textarea");

export function help() {
  by("help").showModal();
}
