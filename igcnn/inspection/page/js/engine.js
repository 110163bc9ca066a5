// A network of steps on one image. With the two files before it this one is the worker's as well,
// and touches nothing of the page.

// Probabilities, the loss of a class, and its gradient.
function softmaxCrossEntropy(logits, label) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (z) => Math.exp(z - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const probabilities = Float32Array.from(powers, (power) => power / total);
  const gradient = Float32Array.from(powers, (power, k) => power / total - (k === label ? 1 : 0));
  return { probabilities, loss: Math.log(total) + largest - logits[label], gradient };
}

// The arrays of a program as views of one Float32Array that holds them one after another.
function arraysOf(program, weights) {
  let at = 0;
  return program.arrays.map(({ shape }) => {
    const size = shape.reduce((product, side) => product * side, 1);
    at += size;
    return weights.subarray(at - size, at);
  });
}

function partsOf(program, arrays, step) {
  const own = {}, shape = {};
  for (const [role, number] of Object.entries(step.arrays)) {
    own[role] = arrays[number];
    shape[role] = program.arrays[number].shape;
  }
  return { own, shape };
}

// Silenced channels are 0 whatever their step computes; silenced: tensor → channels.
function silence(program, tensor, values, silenced) {
  const [, H = 1, W = 1] = program.shapes[tensor];
  for (const c of silenced[tensor] || []) values.fill(0, c * H * W, (c + 1) * H * W);
}

function forward(program, weights, x, silenced = {}) {
  const arrays = arraysOf(program, weights), values = [x];
  for (const step of program.steps) {
    const { own, shape } = partsOf(program, arrays, step);
    const inputs = step.inputs.map((number) => values[number]);
    values[step.output] = OPS[step.op].forward(step, sizesOf(program, step), inputs, own, shape);
    silence(program, step.output, values[step.output], silenced);
  }
  return values;
}

// Gradients of the loss with respect to every tensor and every array.
function backward(program, weights, values, gradient, silenced = {}) {
  const arrays = arraysOf(program, weights);
  const gradients = values.map(() => null), ofWeights = new Float32Array(weights.length);
  const ofArrays = arraysOf(program, ofWeights);
  gradients[values.length - 1] = gradient;
  for (const step of [...program.steps].reverse()) {
    const gy = gradients[step.output];
    if (!gy) continue;
    const { own, shape } = partsOf(program, arrays, step);
    const inputs = step.inputs.map((number) => values[number]);
    const passed = silenced[step.output] ? gy.slice() : gy;
    silence(program, step.output, passed, silenced);
    const found = OPS[step.op].backward(
      step, sizesOf(program, step), passed, inputs, own, shape, values[step.output]);
    found.inputs.forEach((gx, k) => {
      const number = step.inputs[k], before = gradients[number];
      gradients[number] = before ? each(gx.length, (n) => before[n] + gx[n]) : gx;
    });
    for (const [role, g] of Object.entries(found.arrays)) {
      const sum = ofArrays[step.arrays[role]];
      g.forEach((value, k) => { sum[k] += value; });
    }
  }
  return { gradients, ofWeights };
}

// Everything for one image; label −1 stands for the most probable class.
function compute({ program, weights, x, label, silenced }) {
  const start = performance.now();
  const values = forward(program, weights, x, silenced);
  const logits = values[values.length - 1];
  const chosen = label < 0 ? logits.indexOf(Math.max(...logits)) : label;
  const { probabilities, loss, gradient } = softmaxCrossEntropy(logits, chosen);
  const { gradients, ofWeights } = backward(program, weights, values, gradient, silenced);
  const ms = performance.now() - start;
  return { values, gradients, ofWeights, probabilities, loss, label: chosen, ms };
}

// By how much the probability of a class falls when a square of the image is set to 0, the mean.
function occlude({ program, weights, x, label, silenced, side }) {
  const [C, H, W] = program.shapes[0];
  const probability = (image) => {
    const values = forward(program, weights, image, silenced);
    return softmaxCrossEntropy(values[values.length - 1], label).probabilities[label];
  };
  const whole = probability(x), fall = new Float32Array(H * W);
  for (let top = 0; top < H; top += side) {
    for (let left = 0; left < W; left += side) {
      const image = x.slice(), places = [];
      for (let i = top; i < Math.min(H, top + side); i++) {
        for (let j = left; j < Math.min(W, left + side); j++) places.push(i * W + j);
      }
      for (let c = 0; c < C; c++) for (const at of places) image[c * H * W + at] = 0;
      const less = whole - probability(image);
      for (const at of places) fall[at] = less;
    }
  }
  return { fall, whole };
}
