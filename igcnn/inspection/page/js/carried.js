// The wiring of a unit lit by what each path carries for this image: |W| of every factor · |x|.

// The factors of a layer as |W| summed over the taps, (D, Cg), and the mean |x| of its inputs.
function factorsOf(program, layer, result, weights) {
  const steps = program.steps.filter((step) => step.layer === layer && step.op === "convolution");
  if (!steps.length) return { factors: [], means: null };
  const arrays = arraysOf(program, weights);
  const factors = steps.map((step) => {
    const [D, Cg, KH, KW] = program.arrays[step.arrays.w].shape, w = arrays[step.arrays.w];
    const sizes = each(D * Cg, (at) => {
      let sum = 0;
      for (let tap = at * KH * KW; tap < (at + 1) * KH * KW; tap++) sum += Math.abs(w[tap]);
      return sum;
    });
    return { D, Cg, sizes, group: D / step.groups };
  });
  const { C, H, W } = sizesOf(program, steps[0]), x = result.values[steps[0].inputs[0]];
  const means = each(C, (c) => {
    let sum = 0;
    for (let k = c * H * W; k < (c + 1) * H * W; k++) sum += Math.abs(x[k]);
    return sum / (H * W);
  });
  return { factors, means };
}

// What reaches each channel after each permutation: in all, and by the strongest path, with the
// channel of the column before from which that comes.
function carriedTo(factors, means, orders) {
  let all = means, best = means;
  return factors.map(({ D, Cg, sizes, group }, k) => {
    const sums = new Float64Array(D), tops = new Float64Array(D), from = new Int32Array(D);
    for (let q = 0; q < D; q++) {
      for (let m = 0; m < Cg; m++) {
        const c = Math.floor(q / group) * Cg + m, w = sizes[q * Cg + m];
        sums[q] += w * all[c];
        if (m === 0 || w * best[c] > tops[q]) { tops[q] = w * best[c]; from[q] = c; }
      }
    }
    all = each(D, (c) => sums[orders[k][c]]);
    best = each(D, (c) => tops[orders[k][c]]);
    return { all, best, from };
  });
}

// What a unit at each channel after each permutation becomes until the output.
function gains(factors, orders) {
  let gain = new Float64Array(factors.at(-1).D).fill(1);
  const found = [gain];
  for (let k = factors.length - 1; k > 0; k--) {
    const { D, Cg, sizes, group } = factors[k], before = new Float64Array(factors[k - 1].D);
    for (let c = 0; c < D; c++) {
      const q = orders[k][c];
      for (let m = 0; m < Cg; m++) before[Math.floor(q / group) * Cg + m] += sizes[q * Cg + m] * gain[c];
    }
    found.unshift(gain = before);
  }
  return found;
}

function strongest(reached, orders) {
  const K = reached.length, { all, best } = reached[K - 1];
  let c = best.indexOf(Math.max(...best));
  const share = best[c] / (all.reduce((sum, value) => sum + value, 0) || 1);
  const words = [`output channel ${c}`];
  for (let k = K - 1; k >= 0; k--) {
    const q = orders[k][c];
    words.unshift(`output ${q} of ${factorName(K, k)}`);
    c = reached[k].from[q];
  }
  return `The path that carries most for this image: ${[`input channel ${c}`, ...words].join(", ")}; ` +
    `${(100 * share).toFixed(2)} % of all that the unit carries.`;
}

function carried(figure) {
  const choice = figure.querySelector(".carried");
  if (!choice) return;
  const svg = figure.querySelector("svg.wiring"), told = figure.querySelector(".carried-told");
  const { groups, orders } = wiringOf(figure);
  const stages = groups.map((_, k) => [...svg.querySelectorAll(`[data-stage="${k + 1}"] path`)]);
  const bundled = svg.querySelector(".bundled") !== null;

  function show() {
    told.textContent = "";
    svg.classList.remove("carrying");
    if (!choice.value || !live.results.length) return;
    const { factors, means } = factorsOf(programOf(live.model), choice.value, live.results[0], live.weights[live.model]);
    if (factors.length !== groups.length) return; // the network shown has no such unit
    svg.classList.add("carrying");
    const reached = carriedTo(factors, means, orders), gain = gains(factors, orders);
    if (!bundled) {
      stages.forEach((wires, k) => {
        const amounts = reached[k].all.map((amount, c) => amount * gain[k][c]), most = Math.max(...amounts) || 1;
        wires.forEach((wire, c) => wire.style.setProperty("--carried", (amounts[c] / most).toFixed(3)));
      });
    }
    told.textContent = strongest(reached, orders) +
      (bundled ? " The wires of this unit are drawn in bundles, which are not lit." : "");
  }

  choice.addEventListener("change", show);
  live.listeners.push(() => { if (choice.value) show(); });
}

document.querySelectorAll("figure.wiring").forEach(carried);
start();
