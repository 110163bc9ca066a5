// The wiring of a unit lit by what each path carries for this image: |Wᵈ| · |Wᵖ| · |x|.

// Of each secondary weight (t, k), the carried amount; with what each primary output carries by input.
function carriedBy(program, layer, result, weights) {
  const [first, second] = program.steps.filter((step) => step.layer === layer);
  const arrays = arraysOf(program, weights), s = sizesOf(program, first);
  const [D, Cg, KH, KW] = program.arrays[first.arrays.w].shape, size = s.H * s.W;
  const w1 = arrays[first.arrays.w], w2 = arrays[second.arrays.w];
  const x = result.values[first.inputs[0]];
  const means = each(s.C, (c) => {
    let sum = 0;
    for (let k = c * size; k < (c + 1) * size; k++) sum += Math.abs(x[k]);
    return sum / size;
  });
  // of primary output q from the m-th input of its partition
  const primary = each(D * Cg, (k) => {
    let sum = 0;
    for (let tap = k * KH * KW; tap < (k + 1) * KH * KW; tap++) sum += Math.abs(w1[tap]);
    const q = Math.floor(k / Cg), partition = Math.floor(q / (D / first.groups));
    return sum * means[partition * Cg + (k % Cg)];
  });
  const K = D / second.groups;
  const ofOutput = (q) => primary.subarray(q * Cg, (q + 1) * Cg).reduce((sum, value) => sum + value, 0);
  const source = (t, k) => reorder(Math.floor(t / K) * K + k, D, second.reads);
  const paths = each(D * K, (at) => Math.abs(w2[at]) * ofOutput(source(Math.floor(at / K), at % K)));
  return { D, Cg, K, primary, paths, source, w2, first, second };
}

// The strongest path: [input, primary output, secondary output, output, share of all].
function strongest({ D, Cg, K, primary, paths, source, w2, first, second }) {
  const total = paths.reduce((sum, value) => sum + value, 0) || 1;
  let best = [0, 0, 0, 0, -1];
  for (let c = 0; c < D; c++) {
    const t = reorder(c, D, second.writes);
    for (let k = 0; k < K; k++) {
      const q = source(t, k);
      for (let m = 0; m < Cg; m++) {
        const share = (Math.abs(w2[t * K + k]) * primary[q * Cg + m]) / total;
        if (share > best[4]) best = [Math.floor(q / (D / first.groups)) * Cg + m, q, t, c, share];
      }
    }
  }
  return best;
}

function carried(figure) {
  const choice = figure.querySelector(".carried");
  if (!choice) return;
  const svg = figure.querySelector("svg.wiring"), told = figure.querySelector(".carried-told");
  const stages = ["interleave", "restore"].map((name) => [...svg.querySelectorAll(`[data-stage=${name}] path`)]);
  const bundled = svg.querySelector(".bundled") !== null;

  function show() {
    const program = programOf(live.model), layer = choice.value;
    const present = program.steps.filter((step) => step.layer === layer).length === 2;
    svg.classList.toggle("carrying", present);
    told.textContent = "";
    if (!present || !live.results.length) return;
    const found = carriedBy(program, layer, live.results[0], live.weights[live.model]);
    const { D, K, paths, second } = found;
    const ofInput = new Float64Array(D), ofOutput = new Float64Array(D); // secondary inputs, outputs
    for (let at = 0; at < D * K; at++) {
      const t = Math.floor(at / K);
      ofInput[Math.floor(t / K) * K + (at % K)] += paths[at];
      ofOutput[t] += paths[at];
    }
    if (!bundled) {
      const restored = each(D, (c) => ofOutput[reorder(c, D, second.writes)]);
      [ofInput, restored].forEach((amounts, stage) => {
        const most = Math.max(...amounts) || 1;
        stages[stage].forEach((path, k) => path.style.setProperty("--carried", (amounts[k] / most).toFixed(3)));
      });
    }
    const [i, q, t, c, share] = strongest(found);
    told.textContent = `The path that carries most for this image: input channel ${i}, primary output ${q}, ` +
      `secondary output ${t}, output channel ${c}; ${(100 * share).toFixed(2)} % of all that the unit carries.` +
      (bundled ? " The wires of this unit are drawn in bundles, which are not lit." : "");
  }

  choice.addEventListener("change", show);
  live.listeners.push(() => { if (choice.value) show(); });
}

document.querySelectorAll("figure.wiring").forEach(carried);
start();
