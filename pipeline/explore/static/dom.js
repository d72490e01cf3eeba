// Small helpers for elements and numbers.

export const by = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const whole = (number) => number.toLocaleString("en-US");

export function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  if (Array.isArray(value)) return value.map(short).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}

export function complain(error) {
  by("message").hidden = !error;
  by("message").textContent = error ? error.message ?? String(error) : "";
}
