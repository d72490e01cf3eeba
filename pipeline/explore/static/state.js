// What is shown, kept in the address after '#', so that a link shows the same.

const listeners = [];
let params = new URLSearchParams(location.hash.slice(1));

export const get = (name, otherwise = "") => params.get(name) ?? otherwise;
export const all = (name) => params.getAll(name);

// Sets some values (null removes, a list gives several) and tells who listens.
export function set(changes) {
  const before = params.toString();
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    if (Array.isArray(value)) value.forEach((one) => params.append(name, one));
    else if (value !== null && value !== "") params.set(name, value);
  }
  if (params.toString() === before) return;
  history.replaceState(null, "", `#${params}`);
  tell(Object.keys(changes));
}

// Notes where the page already is, telling nobody.
export function note(name, value) {
  if (value) params.set(name, value);
  else params.delete(name);
  history.replaceState(null, "", `#${params}`);
}

export function listen(names, action) {
  listeners.push({ names, action });
}

// The parameters of these names, as a query of the server has them.
export function query(names) {
  const chosen = new URLSearchParams();
  for (const [name, value] of params) if (names.includes(name)) chosen.append(name, value);
  return chosen;
}

function tell(changed) {
  for (const { names, action } of listeners) if (names.some((name) => changed.includes(name))) action(changed);
}

addEventListener("hashchange", () => {
  const before = params;
  params = new URLSearchParams(location.hash.slice(1));
  const names = new Set([...before.keys(), ...params.keys()]);
  const lists = (of, name) => of.getAll(name).join("\n");
  tell([...names].filter((name) => lists(before, name) !== lists(params, name)));
});
