// One number of a layer's output as the sum that it is, and the pixels that it can depend on.

const MOST_TERMS = 9;

// The products of one output of a convolution: [name, weight, name, number].
function convolutionTerms(program, step, arrays, x, [o, i, j], letters) {
  const s = sizesOf(program, step), shape = program.arrays[step.arrays.w].shape;
  const [, Cg, KH, KW] = shape, w = arrays[step.arrays.w], terms = [];
  const t = step.writes > 1 ? reorder(o, s.D, step.writes) : o;
  const first = Math.floor(t / (s.D / step.groups)) * Cg;
  for (let c = 0; c < Cg; c++) {
    const channel = step.reads > 1 ? reorder(first + c, s.C, step.reads) : first + c;
    for (let a = 0; a < KH; a++) {
      for (let b = 0; b < KW; b++) {
        const row = i * step.stride[0] + a - step.padding[0];
        const column = j * step.stride[1] + b - step.padding[1];
        if (row < 0 || row >= s.H || column < 0 || column >= s.W) continue;
        terms.push([
          `${letters[0]}[${t}, ${c}, ${a}, ${b}]`, w[((t * Cg + c) * KH + a) * KW + b],
          `${letters[1]}[${channel}, ${row}, ${column}]`, x[(channel * s.H + row) * s.W + column],
        ]);
      }
    }
  }
  if (step.arrays.b !== undefined) terms.push([`b[${t}]`, arrays[step.arrays.b][t], "1", 1]);
  return terms;
}

// The inputs of one output of a step that is no sum of products: name → number.
function plainInputs(program, step, arrays, inputs, [c, i, j]) {
  const s = sizesOf(program, step), at = (c * s.H + i) * s.W + j;
  if (step.op === "batch_norm") {
    const named = { "μ": "mean", "σ²": "variance", "γ": "gamma", "β": "beta" };
    const numbers = Object.entries(named).map(([sign, role]) => [sign, arrays[step.arrays[role]][c]]);
    return [["x", inputs[0][at]], ...numbers, ["ε", step.eps]];
  }
  if (step.op === "add") return [["x", inputs[0][at]], ["f(x)", inputs[1][at]]];
  if (step.op === "permutation") {
    const from = reorder(c, s.C, step.branches);
    return [[`x[${from}, ${i}, ${j}]`, inputs[0][(from * s.H + i) * s.W + j]]];
  }
  if (!step.kernel) return [["x", inputs[0][at]]];
  const found = [];
  for (const { dy, dx, i0, i1, j0, j1 } of tapsOf(step.kernel, step, s)) {
    if (i < i0 || i >= i1 || j < j0 || j >= j1) continue;
    const row = i * step.stride[0] + dy, column = j * step.stride[1] + dx;
    found.push([`x[${c}, ${row}, ${column}]`, inputs[0][(c * s.H + row) * s.W + column]]);
  }
  return found;
}

const RULES = {
  batch_norm: "γ · (x − μ) / √(σ² + ε) + β", relu: "max(x, 0)", relu6: "min(max(x, 0), 6)",
  add: "x + f(x)", scale: "a constant times x", max_pool: "max of the window",
  average_pool: "mean of the window", permutation: "a channel, moved",
};

// The lines of a calculation, last line last: { step, index, terms or inputs, value }.
function writeOut(program, layer, result, weights, index) {
  const steps = program.steps.filter((step) => step.layer === layer);
  const arrays = arraysOf(program, weights), lines = [];
  const pair = steps.length === 2 && steps.every(({ op }) => op === "convolution");
  for (const step of steps.toReversed()) {
    const [, H = 1, W = 1] = program.shapes[step.output], [c, i, j] = index;
    const inputs = step.inputs.map((number) => result.values[number]);
    const line = { step, index, value: result.values[step.output][(c * H + i) * W + j] };
    lines.unshift(line);
    if (step.op !== "convolution") {
      line.inputs = plainInputs(program, step, arrays, inputs, index);
      if (step.op !== "permutation") break;
      index = [reorder(c, program.shapes[step.output][0], step.branches), i, j];
      continue;
    }
    const letters = !pair ? ["w", "x"] : step === steps[1] ? ["Wᵈ", "p"] : ["Wᵖ", "x"];
    line.terms = convolutionTerms(program, step, arrays, inputs[0], index, letters);
    line.terms.sort((a, b) => Math.abs(b[1] * b[3]) - Math.abs(a[1] * a[3]));
    // of the primary outputs the one that matters most is written out too
    index = line.terms[0][2].match(/\d+/g).map(Number);
    if (!pair) break;
  }
  return lines;
}

function lineText({ step, index, terms, inputs, value }, silent) {
  const name = `${step.writes > 1 || !terms ? "y" : terms[0][0].startsWith("Wᵖ") ? "p" : "y"}[${index.join(", ")}]`;
  const line = element("p", { className: "sum" }, element("b", {}, name));
  if (inputs) {
    const given = inputs.slice(0, 2 * MOST_TERMS).map(([key, number]) => `${key} = ${shown(number, 6)}`);
    line.append(` = ${RULES[step.op]}, with ${given.join(", ")}${inputs.length > 2 * MOST_TERMS ? ", …" : ""}`);
  } else {
    line.append(" = ");
    terms.slice(0, MOST_TERMS).forEach(([left, a, right, b], k) => line.append(k ? " + " : "",
      element("span", { className: "term", title: `${left} · ${right}` }, `${shown(a)} · ${shown(b)}`)));
    const rest = terms.slice(MOST_TERMS);
    if (rest.length) {
      const sum = rest.reduce((total, [, a, , b]) => total + a * b, 0);
      line.append(` + ${shown(sum)} `, element("span", { className: "quiet" }, `(the other ${rest.length} terms)`));
    }
  }
  line.append(element("br"), "= ", element("b", {}, shown(value, 7)), silent ? ", because its channel is silenced" : "");
  return line;
}

// The rows and columns of the image that a pixel of a tensor can depend on: [top, bottom, left, right].
function receptiveField(program, tensor, i, j) {
  const fields = new Map([[tensor, [i, i, j, j]]]);
  for (const step of program.steps.toReversed()) {
    const field = fields.get(step.output);
    if (!field) continue;
    let [top, bottom, left, right] = field;
    if (step.stride) {
      const kernel = step.kernel || program.arrays[step.arrays.w].shape.slice(2);
      top = top * step.stride[0] - step.padding[0];
      bottom = bottom * step.stride[0] - step.padding[0] + kernel[0] - 1;
      left = left * step.stride[1] - step.padding[1];
      right = right * step.stride[1] - step.padding[1] + kernel[1] - 1;
    }
    for (const number of step.inputs) {
      const [t, b, l, r] = fields.get(number) || [top, bottom, left, right];
      fields.set(number, [Math.min(t, top), Math.max(b, bottom), Math.min(l, left), Math.max(r, right)]);
    }
  }
  const [top, bottom, left, right] = fields.get(0);
  return [Math.max(0, top), Math.min(HEIGHT - 1, bottom), Math.max(0, left), Math.min(WIDTH - 1, right)];
}
