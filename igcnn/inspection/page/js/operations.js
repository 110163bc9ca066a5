// Every other operation, forward and backward, on one image.

function each(count, value) {
  const y = new Float32Array(count);
  for (let k = 0; k < count; k++) y[k] = value(k);
  return y;
}

const OPS = {
  convolution,

  permutation: {
    forward(step, s, [x]) {
      const y = new Float32Array(x.length), n = s.H * s.W;
      orderOf(s.C, step.branches).forEach((from, c) => y.set(x.subarray(from * n, (from + 1) * n), c * n));
      return y;
    },
    backward(step, s, gy) {
      const gx = new Float32Array(gy.length), n = s.H * s.W;
      orderOf(s.C, step.branches).forEach((to, c) => gx.set(gy.subarray(c * n, (c + 1) * n), to * n));
      return { inputs: [gx], arrays: {} };
    },
  },

  // by the running statistics, which are constants
  batch_norm: {
    forward(step, s, [x], { gamma, beta, mean, variance }) {
      const y = new Float32Array(x.length), n = s.H * s.W;
      for (let c = 0; c < s.C; c++) {
        const scale = gamma[c] / Math.sqrt(variance[c] + step.eps);
        for (let k = c * n; k < (c + 1) * n; k++) y[k] = (x[k] - mean[c]) * scale + beta[c];
      }
      return y;
    },
    backward(step, s, gy, [x], { gamma, mean, variance }) {
      const gx = new Float32Array(x.length), n = s.H * s.W;
      const arrays = { gamma: new Float32Array(s.C), beta: new Float32Array(s.C) };
      for (let c = 0; c < s.C; c++) {
        const inverse = 1 / Math.sqrt(variance[c] + step.eps);
        let sum = 0, product = 0;
        for (let k = c * n; k < (c + 1) * n; k++) {
          gx[k] = gy[k] * gamma[c] * inverse;
          sum += gy[k];
          product += gy[k] * (x[k] - mean[c]);
        }
        arrays.beta[c] = sum;
        arrays.gamma[c] = product * inverse;
      }
      return { inputs: [gx], arrays };
    },
  },

  relu: {
    forward: (step, s, [x]) => each(x.length, (k) => (x[k] > 0 ? x[k] : 0)),
    backward: (step, s, gy, inputs, arrays, shape, y) => ({
      inputs: [each(y.length, (k) => (y[k] > 0 ? gy[k] : 0))], arrays: {},
    }),
  },

  relu6: {
    forward: (step, s, [x]) => each(x.length, (k) => Math.min(Math.max(x[k], 0), 6)),
    backward: (step, s, gy, inputs, arrays, shape, y) => ({
      inputs: [each(y.length, (k) => (y[k] > 0 && y[k] < 6 ? gy[k] : 0))], arrays: {},
    }),
  },

  add: {
    forward: (step, s, [a, b]) => each(a.length, (k) => a[k] + b[k]),
    backward: (step, s, gy) => ({ inputs: [gy, gy], arrays: {} }),
  },

  scale: {
    forward: (step, s, [x]) => each(x.length, (k) => x[k] * step.factor),
    backward: (step, s, gy) => ({
      inputs: [each(gy.length, (k) => gy[k] * step.factor)], arrays: {},
    }),
  },

  max_pool: {
    forward(step, s, [x]) {
      const y = new Float32Array(s.C * s.OH * s.OW);
      poolWinners(step, s, x).forEach((at, k) => { y[k] = x[at]; });
      return y;
    },
    backward(step, s, gy, [x]) {
      const gx = new Float32Array(x.length);
      poolWinners(step, s, x).forEach((at, k) => { gx[at] += gy[k]; });
      return { inputs: [gx], arrays: {} };
    },
  },

  average_pool: {
    forward(step, s, [x]) {
      const sum = new Float64Array(s.C * s.OH * s.OW), counts = poolCounts(step, s);
      eachPooled(step, s, (from, to) => { sum[to] += x[from]; });
      return Float32Array.from(sum, (value, k) => value / counts[k % counts.length]);
    },
    backward(step, s, gy, [x]) {
      const gx = new Float64Array(x.length), counts = poolCounts(step, s);
      eachPooled(step, s, (from, to) => { gx[from] += gy[to] / counts[to % counts.length]; });
      return { inputs: [new Float32Array(gx)], arrays: {} };
    },
  },

  global_average_pool: {
    forward(step, s, [x]) {
      const n = s.H * s.W;
      return Float32Array.from({ length: s.C }, (_, c) => {
        let sum = 0;
        for (let k = c * n; k < (c + 1) * n; k++) sum += x[k];
        return sum / n;
      });
    },
    backward(step, s, gy, [x]) {
      const n = s.H * s.W;
      return { inputs: [x.map((_, k) => gy[Math.floor(k / n)] / n)], arrays: {} };
    },
  },

  linear: {
    forward(step, s, [x], { w, b }) {
      return Float32Array.from({ length: s.D }, (_, o) => {
        let sum = b ? b[o] : 0;
        for (let i = 0; i < x.length; i++) sum += w[o * x.length + i] * x[i];
        return sum;
      });
    },
    backward(step, s, gy, [x], { w, b }) {
      const gx = new Float64Array(x.length), n = x.length;
      const gw = w.map((_, k) => gy[Math.floor(k / n)] * x[k % n]);
      for (let o = 0; o < s.D; o++) for (let i = 0; i < n; i++) gx[i] += w[o * n + i] * gy[o];
      return { inputs: [new Float32Array(gx)], arrays: { w: gw, ...(b && { b: gy }) } };
    },
  },
};

// Calls visit(place in x, place in y) for every pixel of every window, taps in their order.
function eachPooled(step, s, visit) {
  const [sy, sx] = step.stride;
  for (const { dy, dx, i0, i1, j0, j1 } of tapsOf(step.kernel, step, s)) {
    for (let c = 0; c < s.C; c++) {
      for (let i = i0; i < i1; i++) {
        for (let j = j0; j < j1; j++) {
          visit((c * s.H + i * sy + dy) * s.W + j * sx + dx, (c * s.OH + i) * s.OW + j);
        }
      }
    }
  }
}

// The place of the largest pixel of each window, the first where several are equal.
function poolWinners(step, s, x) {
  const winners = new Int32Array(s.C * s.OH * s.OW).fill(-1);
  eachPooled(step, s, (from, to) => {
    if (winners[to] < 0 || x[from] > x[winners[to]]) winners[to] = from;
  });
  return winners;
}

function poolCounts(step, s) {
  const counts = new Float64Array(s.OH * s.OW);
  if (step.counted) return counts.fill(step.kernel[0] * step.kernel[1]);
  eachPooled(step, { ...s, C: 1 }, (from, to) => { counts[to] += 1; });
  return counts;
}
