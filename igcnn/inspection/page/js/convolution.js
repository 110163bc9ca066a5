// Convolution, grouped, strided, padded, with the permutations around it: forward and backward.
//
// A tensor is a Float32Array in the order (C, H, W). Sums are added up in float64 and rounded once.

// Channel c of the result of Reorder(b) is channel reorder(c) of its input (kernels/permutation.py).
function reorder(c, channels, branches) {
  return (c % branches) * (channels / branches) + Math.floor(c / branches);
}

// y[n] = x[order[n]] for the planes of Reorder(b); null for none.
function orderOf(channels, branches) {
  return Int32Array.from({ length: channels }, (_, c) => reorder(c, channels, branches));
}

// Sizes of a step in one object: x is (C, H, W), y is (D, OH, OW).
function sizesOf(program, step) {
  const [C, H = 1, W = 1] = program.shapes[step.inputs[0]];
  const [D, OH = 1, OW = 1] = program.shapes[step.output];
  return { C, H, W, D, OH, OW };
}

// The taps of a window: which output rows and columns have their pixel i·sy + dy, j·sx + dx inside
// the image.
function tapsOf([KH, KW], step, { H, W, OH, OW }) {
  const [sy, sx] = step.stride, [py, px] = step.padding, taps = [];
  for (let a = 0; a < KH; a++) {
    const dy = a - py, i0 = Math.max(0, Math.ceil(-dy / sy));
    const i1 = Math.min(OH, Math.floor((H - 1 - dy) / sy) + 1);
    for (let b = 0; b < KW; b++) {
      const dx = b - px, j0 = Math.max(0, Math.ceil(-dx / sx));
      const j1 = Math.min(OW, Math.floor((W - 1 - dx) / sx) + 1);
      taps.push({ dy, dx, i0, i1, j0, j1 });
    }
  }
  return taps;
}

// A convolution is a product of matrices a group: the weights, (outputs, rows), by the columns,
// (rows, pixels), a row for each input channel and tap. Rows are taken four at a time, so that a
// sum is loaded and stored once for four products.

function convolutionSizes(step, s, shape) {
  const [, Cg, KH, KW] = shape.w, write = new Int32Array(s.D);
  // which plane of x a group's input reads, and which plane of y an output becomes
  orderOf(s.D, step.writes).forEach((t, c) => { write[t] = c; });
  return {
    Cg, write, read: orderOf(s.C, step.reads), taps: tapsOf([KH, KW], step, s),
    outputs: s.D / step.groups, K: Cg * KH * KW, P: s.OH * s.OW,
  };
}

function fillColumns(columns, step, s, z, group, x) {
  const [sy, sx] = step.stride;
  for (let c = 0; c < z.Cg; c++) {
    const plane = z.read[group * z.Cg + c] * s.H * s.W;
    for (let t = 0; t < z.taps.length; t++) {
      const { dy, dx, i0, i1, j0, j1 } = z.taps[t], row = (c * z.taps.length + t) * z.P;
      for (let i = i0; i < i1; i++) {
        const from = plane + (i * sy + dy) * s.W + dx, to = row + i * s.OW;
        for (let j = j0; j < j1; j++) columns[to + j] = x[from + j * sx];
      }
    }
  }
}

// Adds a row of an input's gradient to the pixels that it was read from.
function addColumn(gx, sum, step, s, plane, { dy, dx, i0, i1, j0, j1 }) {
  const [sy, sx] = step.stride;
  for (let i = i0; i < i1; i++) {
    const to = plane + (i * sy + dy) * s.W + dx, from = i * s.OW;
    for (let j = j0; j < j1; j++) gx[to + j * sx] += sum[from + j];
  }
}

// sum += Σ factors[at + k·stride] · row k
function addRows(sum, factors, at, stride, rows, count, P) {
  let k = 0;
  for (; k + 4 <= count; k += 4) {
    const f0 = factors[at + k * stride], f1 = factors[at + (k + 1) * stride];
    const f2 = factors[at + (k + 2) * stride], f3 = factors[at + (k + 3) * stride];
    const r0 = k * P, r1 = r0 + P, r2 = r1 + P, r3 = r2 + P;
    for (let j = 0; j < P; j++) {
      sum[j] += f0 * rows[r0 + j] + f1 * rows[r1 + j] + f2 * rows[r2 + j] + f3 * rows[r3 + j];
    }
  }
  for (; k < count; k++) {
    const factor = factors[at + k * stride], row = k * P;
    for (let j = 0; j < P; j++) sum[j] += factor * rows[row + j];
  }
}

// out[at + k] = Σ g[from + j] · row k [j]
function dotRows(out, at, g, from, rows, count, P) {
  let k = 0;
  for (; k + 4 <= count; k += 4) {
    const r0 = k * P, r1 = r0 + P, r2 = r1 + P, r3 = r2 + P;
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (let j = 0; j < P; j++) {
      const gy = g[from + j];
      s0 += gy * rows[r0 + j];
      s1 += gy * rows[r1 + j];
      s2 += gy * rows[r2 + j];
      s3 += gy * rows[r3 + j];
    }
    out[at + k] = s0;
    out[at + k + 1] = s1;
    out[at + k + 2] = s2;
    out[at + k + 3] = s3;
  }
  for (; k < count; k++) {
    let sum = 0;
    for (let j = 0; j < P; j++) sum += g[from + j] * rows[k * P + j];
    out[at + k] = sum;
  }
}

const convolution = {
  forward(step, s, [x], { w, b }, shape) {
    const z = convolutionSizes(step, s, shape), { K, P } = z;
    const y = new Float32Array(s.D * P), sum = new Float64Array(P);
    const columns = new Float64Array(K * P);
    for (let group = 0; group < step.groups; group++) {
      fillColumns(columns, step, s, z, group, x);
      for (let o = group * z.outputs; o < (group + 1) * z.outputs; o++) {
        sum.fill(b ? b[o] : 0);
        addRows(sum, w, o * K, 1, columns, K, P);
        y.set(sum, z.write[o] * P);
      }
    }
    return y;
  },
  backward(step, s, gy, [x], { w, b }, shape) {
    const z = convolutionSizes(step, s, shape), { K, P, taps, outputs } = z;
    const gx = new Float64Array(s.C * s.H * s.W), gw = new Float32Array(w.length);
    const gb = b ? new Float32Array(b.length) : null;
    const columns = new Float64Array(K * P), sum = new Float64Array(P);
    const arriving = new Float64Array(outputs * P);
    for (let group = 0; group < step.groups; group++) {
      const first = group * outputs;
      fillColumns(columns, step, s, z, group, x);
      for (let k = 0; k < outputs; k++) {
        const from = z.write[first + k] * P;
        arriving.set(gy.subarray(from, from + P), k * P);
        dotRows(gw, (first + k) * K, arriving, k * P, columns, K, P);
        if (gb) gb[first + k] = gy.subarray(from, from + P).reduce((total, g) => total + g, 0);
      }
      for (let k = 0; k < K; k++) {
        sum.fill(0);
        addRows(sum, w, first * K + k, K, arriving, outputs, P);
        const plane = z.read[group * z.Cg + Math.floor(k / taps.length)] * s.H * s.W;
        addColumn(gx, sum, step, s, plane, taps[k % taps.length]);
      }
    }
    return { inputs: [new Float32Array(gx)], arrays: { w: gw, ...(gb && { b: gb }) } };
  },
};
