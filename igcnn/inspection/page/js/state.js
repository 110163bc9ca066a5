// What the page shows and computes: images, networks, changes; the worker that computes.

const data = JSON.parse(document.getElementById("live-data").textContent);
const [CHANNELS, HEIGHT, WIDTH] = data.shape;
const find = (id) => document.getElementById(id);

const live = {
  original: Float32Array.from(bytesOf(data.pixels)),
  pixels: Float32Array.from(bytesOf(data.pixels)), // 0 to 255, (C, H, W)
  model: data.first, // number of the network that is shown
  beside: null, // of the one beside it
  label: data.label,
  originals: [], // the weights of each network
  weights: [], // the same with the changes made here
  silenced: {}, // tensor → channels
  edits: [], // { array, index } of weights that were changed
  results: [], // of the network shown, and of the one beside it
  agreements: [], // with NumPy, of each network
  listeners: [], // called when there are new results
};

function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// Packed weights are deflated, all first bytes before all second ones.
async function unpacked(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 4, bytes = new Uint8Array(planes.length);
  for (let b = 0; b < 4; b++) for (let k = 0; k < count; k++) bytes[4 * k + b] = planes[b * count + k];
  return new Float32Array(bytes.buffer);
}

const ANSWER = `onmessage = ({ data: { ticket, task, job } }) =>
  postMessage({ ticket, found: (task === "occlude" ? occlude : compute)(job) });`;
const worker = new Worker(URL.createObjectURL(
  new Blob([find("engine").textContent, ANSWER], { type: "text/javascript" })));
const waiting = new Map();
let tickets = 0;

worker.onmessage = ({ data: { ticket, found } }) => {
  waiting.get(ticket)(found);
  waiting.delete(ticket);
};

function ask(task, job) {
  tickets += 1;
  worker.postMessage({ ticket: tickets, task, job });
  return new Promise((resolve) => { waiting.set(tickets, resolve); });
}

const programOf = (model) => data.programs[data.models[model].program];

// The image as a network sees it.
function normalised(model) {
  const { mean, std } = data.models[model], size = HEIGHT * WIDTH;
  return live.pixels.map((value, k) => (value - mean[Math.floor(k / size)]) / std[Math.floor(k / size)]);
}

function jobOf(model) {
  const same = data.models[model].program === data.models[live.model].program;
  return {
    program: programOf(model), weights: live.weights[model], x: normalised(model),
    label: live.label, silenced: same ? live.silenced : {},
  };
}

const models = () => (live.beside === null ? [live.model] : [live.model, live.beside]);
let busy = false, again = false;

// Computes what is shown; what changes meanwhile is computed afterwards.
async function update() {
  again = true;
  if (busy) return;
  busy = true;
  while (again) {
    again = false;
    const asked = models();
    const found = await Promise.all(asked.map((model) => ask("compute", jobOf(model))));
    found.forEach((result, k) => { result.model = asked[k]; });
    live.results = found;
    live.listeners.forEach((listener) => listener());
  }
  busy = false;
}

// The largest difference from NumPy's numbers, in units of the last place of the largest of each.
function agreement(check, { values, gradients }) {
  let worst = 0, tensors = 0;
  check.tensors.forEach((expected, k) => {
    for (const [key, own] of [["values", values[k]], ["gradients", gradients[k]]]) {
      if (!expected[key]) continue;
      const { places, numbers, largest } = expected[key];
      const ulp = 2 ** (Math.floor(Math.log2(Math.max(largest, 2 ** -126))) - 23);
      places.forEach((place, n) => { worst = Math.max(worst, Math.abs(own[place] - numbers[n]) / ulp); });
      tensors += 1;
    }
  });
  return { worst, tensors };
}

async function start() {
  live.originals = await Promise.all(data.models.map(({ weights }) => unpacked(weights)));
  live.weights = live.originals.map((weights) => weights.slice());
  await update();
  for (const [k, model] of data.models.entries()) {
    const found = await ask("compute", { ...jobOf(k), label: model.check.label });
    live.agreements.push(agreement(model.check, found));
  }
  live.listeners.forEach((listener) => listener());
  document.documentElement.dataset.ready = "true";
}
