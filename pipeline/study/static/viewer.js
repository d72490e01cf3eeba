// Crops in NiiVue, one canvas each. Input is handled here, the same for all canvases: NiiVue gets none of it.

import { LETTERS, outlined } from "/shared/letters.js";

const CROSS_VOX = 0.2; // thickness of the cross
const views = [];
let range = [-160, 240];
let wide = true; // axial only; else three planes
let zoom = 1;
let cross = true;
let windowNow = [-160, 240];
let preset = 0;
const seen = new Set();

const PRESETS = () => [["abdomen", range], ["liver", [15, 165]], ["liver, native", [-15, 105]]];
const figures = () => [...document.querySelectorAll(".view")];

async function view(k) {
  if (views[k]) return views[k];
  const made = new window.niivue.Niivue({
    isRadiologicalConvention: true, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", logLevel: "error", dragAndDropEnabled: false,
    crosshairWidth: CROSS_VOX, crosshairGap: 22, crosshairColor: [0.95, 0.9, 0.25, 0.9], backColor: [0, 0, 0, 1], loadingText: "", multiplanarShowRender: 0,
    isColorbar: false, isOrientationTextVisible: true, ...LETTERS, isNearestInterpolation: false,
  });
  await made.attachToCanvas(figures()[k].querySelector("canvas"));
  views[k] = outlined(made);
  return made;
}

// Shows crops (ArrayBuffers of NIfTI) from left to right, each at its lesion (voxel); resolves when they are drawn.
export async function show(buffers, places, rangeHu, captions) {
  range = rangeHu;
  figures().forEach((figure, k) => {
    figure.hidden = k >= buffers.length;
    figure.querySelector("figcaption").textContent = captions[k] ?? "";
  });
  for (const [k, buffer] of buffers.entries()) {
    const nv = await view(k);
    for (const old of [...nv.volumes]) nv.removeVolume(old);
    nv.addVolume(await window.niivue.NVImage.loadFromUrl({ url: "case.nii", name: "case.nii", buffer: buffer.slice(0), colormap: "gray" }));
    nv.place = places[k];
  }
  zoom = 1;
  preset = 0;
  windowNow = [...range];
  seen.clear();
  center();
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
}

const shown = () => views.filter((_, k) => !figures()[k].hidden);

export function center() {
  for (const nv of shown()) nv.scene.crosshairPos = nv.vox2frac(nv.place);
  draw();
}

function draw() {
  for (const nv of shown()) {
    [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = windowNow;
    nv.setCrosshairWidth(cross ? CROSS_VOX : 0);
    nv.setSliceType(wide ? nv.sliceTypeAxial : nv.sliceTypeMultiplanar);
    const [x, y, z] = nv.frac2mm(nv.scene.crosshairPos);
    nv.setPan2Dxyzmm([(1 - zoom) * x, (1 - zoom) * y, (1 - zoom) * z, zoom]);
    nv.updateGLVolume();
  }
  where();
}

// Slices count from the lesion's: both cases of a matched pair lie at one slice of their crops, which readers could tell.
function where() {
  const slices = shown().map((nv) => Math.round(nv.frac2vox(nv.scene.crosshairPos)[2]));
  seen.add(slices[0]);
  const [low, high] = windowNow.map(Math.round);
  const name = PRESETS()[preset]?.[0];
  const offsets = shown().map((nv, k) => slices[k] - Math.round(nv.place[2])).map((n) => (n > 0 ? `+${n}` : `${n}`));
  document.getElementById("where").textContent = `slice ${offsets.join(" | ")}   W ${high - low} L ${Math.round((high + low) / 2)}${name ? ` (${name})` : ""}`;
}

export function scroll(slices) {
  for (const nv of shown()) nv.moveCrosshairInVox(0, 0, slices);
  where();
}

export function nextWindow() {
  preset = (preset + 1) % PRESETS().length;
  windowNow = [...PRESETS()[preset][1]];
  draw();
}

export function changeWindow(width, level) {
  const [low, high] = windowNow;
  const half = Math.max(5, (high - low + width) / 2);
  const middle = Math.min(range[1], Math.max(range[0], (high + low) / 2 + level));
  windowNow = [middle - half, middle + half];
  preset = -1;
  draw();
}

export function changeZoom(factor) {
  zoom = Math.min(6, Math.max(1, zoom * factor));
  draw();
}

export function changePlanes() {
  wide = !wide;
  draw();
}

export function toggleCross() {
  cross = !cross;
  draw();
}

export const slicesSeen = () => seen.size;

export function choose(side) {
  figures().forEach((figure, k) => figure.classList.toggle("chosen", k === side));
}

// The wheel scrolls (with Ctrl it zooms), dragging changes width (across) and level (up and down).
export function listen() {
  for (const figure of figures()) {
    const touch = figure.querySelector(".touch");
    touch.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey) changeZoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
      else scroll(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
    touch.addEventListener("pointerdown", (event) => touch.setPointerCapture(event.pointerId));
    touch.addEventListener("pointermove", (event) => {
      if (event.buttons) changeWindow(event.movementX * 1.5, -event.movementY * 1.5);
    });
    touch.addEventListener("contextmenu", (event) => event.preventDefault());
  }
}
