// Text on images, such as the orientation letters: large, and dark around, so that it reads on bone, tissue and air.

const OUTLINE = [0, 0, 0, 0.9];
const AROUND = [[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1], [1, -1], [1, 1]];

export const LETTERS = { fontColor: [1, 1, 1, 1], fontMinPx: 19, fontSizeScaling: 0.3 };

// NiiVue draws text without an outline: it is drawn around its place first.
export function outlined(nv) {
  const plain = nv.drawText.bind(nv);
  nv.drawText = ([left, top], text, scale, color) => {
    const width = Math.max(1, nv.fontPx / 12);
    const at = [Math.max(left, nv.fontPx / 3), top]; // not cut by the edge or the frame
    for (const [x, y] of AROUND) plain([at[0] + x * width, at[1] + y * width], text, scale, OUTLINE);
    plain(at, text, scale, color);
  };
  return nv;
}
