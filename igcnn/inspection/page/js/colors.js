// Numbers as colors: scales, pictures of maps, color bars.

const scales = Object.fromEntries(Object.entries(data.colors).map(([name, anchors]) => [
  name, Array.from({ length: 256 }, (_, k) => {
    const at = (k / 255) * (anchors.length - 1), low = Math.min(Math.floor(at), anchors.length - 2);
    return anchors[low].map((value, c) => value + (anchors[low + 1][c] - value) * (at - low));
  }),
]));

// Smallest and largest number of arrays; where some are negative equally far on both sides of 0.
function rangeOf(arrays, bothSides = false) {
  let low = 0, high = 0;
  for (const values of arrays) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  const far = Math.max(-low, high) || 1;
  return low < 0 || bothSides ? { low: -far, high: far } : { low: 0, high: far };
}

function colorOf(value, { low, high }) {
  const place = Math.round(((value - low) / (high - low)) * 255);
  return scales[low < 0 ? "diverging" : "sequential"][Math.min(255, Math.max(0, place))];
}

// Maps, (n, H, W), side by side with gaps of a pixel; returns the number of columns.
function paintMaps(canvas, values, [n, H, W], range) {
  const columns = Math.min(n, Math.max(1, Math.round(Math.sqrt(3 * n))));
  canvas.width = columns * (W + 1) - 1;
  canvas.height = Math.ceil(n / columns) * (H + 1) - 1;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  for (let k = 0; k < values.length; k++) {
    const c = Math.floor(k / (H * W)), i = Math.floor(k / W) % H;
    const row = Math.floor(c / columns) * (H + 1) + i, column = (c % columns) * (W + 1) + (k % W);
    picture.data.set([...colorOf(values[k], range), 255], 4 * (row * canvas.width + column));
  }
  context.putImageData(picture, 0, 0);
  return columns;
}

function paintBar(bar, range) {
  const stops = [0, 0.25, 0.5, 0.75, 1].map((share) =>
    `rgb(${colorOf(range.low + share * (range.high - range.low), range).map(Math.round).join(" ")})`);
  bar.querySelector("i").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  bar.querySelector(".low").textContent = shown(range.low);
  bar.querySelector(".high").textContent = shown(range.high);
}

// A number to four digits, with a real minus sign.
function shown(value, digits = 4) {
  const text = value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)
    ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

// An element with its attributes and children.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
