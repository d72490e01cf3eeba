// The sample in slices and 3D: NiiVue on a canvas, its healthy twin on a second one above it for the swipe.

import { image } from "./api.js";
import { by, element } from "./dom.js";
import { LETTERS, outlined } from "/shared/letters.js";

const KEPT = 16; // images, so that the next sample and the last few are there at once
const KEPT_BYTES = 512e6; // whole cases take 100 MB and more each
const MID_GREY = 100; // HU around 0 of a difference, from black to white
export const VIEWS = { all: "All", axial: "Axial", coronal: "Coronal", sagittal: "Sagittal", "3d": "3D" };
export const WINDOWS = {
  "soft tissue": [-160, 240], liver: [15, 165], pancreas: [-35, 165], kidney: [-10, 290], lung: [-1350, 150], bone: [-500, 1300], full: [-1024, 1500],
};
export const TWINS = { off: "Sample", healthy: "Healthy", swipe: "Swipe", difference: "Difference" };

const fetched = new Map();
const sizes = new Map(); // bytes by path, of those that have come
let library = null;
let main = null;
let twin = null;
let showing = Promise.resolve();
let wanted = 0;
let shown = { id: null, base: null, labels: [] };

export function supported() {
  return document.createElement("canvas").getContext("webgl2") !== null;
}

// Images by sample and layer; a promise is kept, so nothing is asked for twice.
function load(id, layer) {
  const path = `/api/sample/${encodeURIComponent(id)}/${layer}.nii`;
  if (!fetched.has(path)) {
    fetched.set(path, image(path));
    fetched.get(path).then(({ buffer }) => forget(path, buffer.byteLength), () => fetched.delete(path));
  }
  return fetched.get(path);
}

// Drops the oldest images, never the newest; whoever still shows one has it.
function forget(path, bytes) {
  sizes.set(path, bytes);
  const kept = () => [...fetched.keys()].reduce((sum, one) => sum + (sizes.get(one) ?? 0), 0);
  while (fetched.size > 1 && (fetched.size > KEPT || kept() > KEPT_BYTES)) {
    const oldest = fetched.keys().next().value;
    fetched.delete(oldest);
    sizes.delete(oldest);
  }
}

export function prefetch(id, layers) {
  for (const layer of layers) load(id, layer).catch(() => null);
}

function libraryLoaded() {
  library ??= new Promise((resolve, reject) => {
    const script = element("script", { src: "/shared/niivue.umd.js", onload: () => resolve(window.niivue), onerror: () => reject(new Error("NiiVue did not load")) });
    document.head.append(script);
  });
  return library;
}

async function viewer(canvas, whenMoved) {
  const { Niivue } = await libraryLoaded();
  const made = new Niivue({
    isRadiologicalConvention: true, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", crosshairWidth: 0.4, crosshairGap: 8, crosshairColor: [1, 0.85, 0.2, 0.8],
    backColor: [0, 0, 0, 1], show3Dcrosshair: true, logLevel: "error", dragAndDropEnabled: false, multiplanarShowRender: 1, multiplanarPadPixels: 4,
    ...LETTERS, isOrientationTextVisible: true, loadingText: "",
  });
  made.opts.dragMode = made.dragModes?.windowing ?? made.opts.dragMode;
  await made.attachToCanvas(canvas);
  made.onLocationChange = whenMoved;
  return outlined(made);
}

// Shows a sample: base image and label layers by the settings; resolves when it is drawn. One after another; what was
// asked for before the latest is left out.
export function show(...asked) {
  const mine = ++wanted;
  showing = showing.catch(() => null).then(() => (mine === wanted ? showNow(...asked) : shown.labels));
  return showing;
}

async function showNow(id, settings, focus, whenMoved) {
  main ??= viewer(by("canvas"), whenMoved);
  const nv = await main;
  const base = { healthy: "healthy", difference: "difference" }[settings.twin] ?? "image";
  const [first, ...labels] = await Promise.all([load(id, base), ...settings.labels.map((layer) => load(id, layer))]);
  labels.forEach((layer, k) => (layer.classes = settings.labels[k] === "prediction" ? predicted(layer.classes) : layer.classes));
  const moved = shown.id !== id;
  const place = moved ? null : [...nv.scene.crosshairPos];
  await fill(nv, [first, ...labels], base);
  shown = { id, base, labels: labels.map((layer) => layer.classes) };
  await swipe(id, settings);
  if (place) nv.scene.crosshairPos = place;
  else nv.scene.crosshairPos = focus ? nv.mm2frac(focus) : [0.5, 0.5, 0.5];
  await arrange(settings);
  return shown.labels;
}

async function fill(nv, images, base) {
  const { NVImage } = await libraryLoaded();
  const volumes = await Promise.all(images.map(({ buffer }, k) => NVImage.loadFromUrl({ url: k ? `label${k}.nii` : "base.nii", name: k ? `label${k}.nii` : "base.nii", buffer: buffer.slice(0), colormap: "gray" })));
  volumes.forEach((volume, k) => (volume.classes = images[k].classes));
  // As `addVolume` leaves them, but without drawing everything once for each of them.
  [nv.volumes, nv.back, nv.overlays] = [volumes, volumes[0], volumes.slice(1)];
  nv.baseLayer = base;
}

// Beside the truth's warm colors; light where both agree.
function predicted(classes) {
  return classes.map((entry) => (entry.predicted ? entry : { ...entry, predicted: true, color: entry.id % 2 ? "#CCCCCC" : "#56B4E9", name: `${entry.name}, predicted` }));
}

// Numbers of a label image to colors; background is clear, and so are organs that are not wanted, and tumors of a healthy twin.
function colors(classes, organs, tumors) {
  const channel = (from) => classes.map(({ color }) => parseInt(color.slice(from, from + 2), 16));
  const seen = ({ id }) => id > 0 && (id % 2 ? organs : tumors); // even ids are tumors
  return { R: channel(1), G: channel(3), B: channel(5), A: classes.map((entry) => (seen(entry) ? 255 : 0)), I: classes.map((_, k) => k), labels: classes.map(({ name }) => name) };
}

async function swipe(id, settings) {
  const on = settings.twin === "swipe";
  by("twin").hidden = by("divider").hidden = by("swipe-line").hidden = !on;
  if (!on) return;
  const healthy = await load(id, "healthy");
  twin ??= viewer(by("twin"), () => null);
  const [above, below] = [await twin, await main];
  await fill(above, [healthy], "healthy");
  below.broadcastTo([above], { "2d": true, "3d": true });
}

// Window and label of the images that are shown, without reading anything again.
export async function arrange(settings) {
  const nv = await main;
  if (!nv?.volumes.length) return;
  if (settings.twin === "swipe" && twin) (await twin).scene.crosshairPos = [...nv.scene.crosshairPos];
  for (const one of await drawn(settings)) {
    const [low, high] = one.baseLayer === "difference" ? [-MID_GREY, MID_GREY] : WINDOWS[settings.window] ?? WINDOWS["soft tissue"];
    [one.volumes[0].cal_min, one.volumes[0].cal_max] = [low, high];
    one.volumes.forEach((layer, k) => {
      layer.opacity = k ? settings.opacity / 100 : 1;
      if (layer.classes) layer.setColormapLabel(colors(layer.classes, settings.organs, one.baseLayer !== "healthy"));
    });
    one.opts.sliceType = sliceType(one, settings.view);
    one.updateGLVolume(); // draws
  }
  divide(settings);
}

// Other planes of the same.
export async function turn(settings) {
  for (const one of await drawn(settings)) one.setSliceType(sliceType(one, settings.view));
  divide(settings);
}

// Where the swipe's sample ends and its twin begins.
export function divide(settings) {
  by("twin").style.clipPath = `inset(0 0 0 ${settings.swipe}%)`;
  by("divider").style.left = `${settings.swipe}%`;
  by("canvas").dataset.shown = [shown.id, settings.view, settings.twin, settings.window, settings.opacity].join(" ");
}

async function drawn(settings) {
  const both = settings.twin === "swipe" ? [main, twin] : [main];
  return (await Promise.all(both)).filter((nv) => nv?.volumes.length);
}

function sliceType(nv, view) {
  return { axial: nv.sliceTypeAxial, coronal: nv.sliceTypeCoronal, sagittal: nv.sliceTypeSagittal, "3d": nv.sliceTypeRender }[view] ?? nv.sliceTypeMultiplanar;
}

// Moves the crosshair by voxels (right, anterior, superior).
export async function move(right, anterior, superior) {
  const nv = await main;
  nv?.moveCrosshairInVox(right, anterior, superior);
}

export async function focusOn(place) {
  const nv = await main;
  if (!nv?.volumes.length || !place) return;
  nv.scene.crosshairPos = nv.mm2frac(place);
  nv.drawScene();
  nv.createOnLocationChange?.();
}
