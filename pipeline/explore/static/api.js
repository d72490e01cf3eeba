// Questions to the server. Every answer but an image is JSON; {"error": message} is thrown as an Error.

export async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.ok) return response.json();
  throw new Error(await reason(response));
}

export async function image(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await reason(response));
  return { buffer: await response.arrayBuffer(), classes: classes(response.headers.get("x-classes")) };
}

async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error;
  } catch {
    return text.trim() || `the server answered ${response.status}`;
  }
}

// "0=#000000=background,2=#D55E00=liver tumor": place in the list is the number in the label image.
function classes(header) {
  if (!header) return null;
  return header.split(",").map((entry) => {
    const [id, color, name] = entry.split("=");
    return { id: Number(id), color, name };
  });
}
