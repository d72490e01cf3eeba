// Time that a case is looked at: from when it is drawn until it is answered, without the time the tab is hidden.

let passed = 0;
let since = null;

export function start() {
  passed = 0;
  since = document.hidden ? null : performance.now();
}

export function stop() {
  pause();
  since = null;
  return passed;
}

function pause() {
  if (since !== null) passed += performance.now() - since;
  since = null;
}

let running = false;
export const run = (on) => { running = on; };
document.addEventListener("visibilitychange", () => {
  if (!running) return;
  if (document.hidden) pause();
  else since = performance.now();
});
