// The wiring of a unit: point at a channel, or type its number, to see its paths.
//
// A wiring of K factors has 2K + 1 columns of channels: the input, and for each factor its outputs
// and what the permutation after it makes of them.

const SHOWN_PATHS = 4;

function wiringOf(figure) {
  const [channels, groups, partitions] = ["channels", "groups", "partitions"].map((key) =>
    figure.dataset[key].split(" ").map(Number));
  const orders = groups.map((G, k) => orderOf(channels[k + 1], G));
  return { channels, groups, partitions, orders };
}

const partitionOf = (c, count, G) => Math.floor(c / (count / G));

// How many paths lead to each channel of each column from input channel i; null stands for all.
function pathsFrom({ channels, groups, orders }, i) {
  const columns = [each(channels[0], (c) => Number(i === null || c === i))];
  groups.forEach((G, k) => {
    const C = channels[k], D = channels[k + 1], sums = new Float64Array(G);
    columns.at(-1).forEach((n, c) => { sums[partitionOf(c, C, G)] += n; });
    const outputs = each(D, (q) => sums[partitionOf(q, D, G)]);
    columns.push(outputs, outputs.map((_, c) => outputs[orders[k][c]]));
  });
  return columns;
}

// How many paths lead from each channel of each column to output channel o.
function pathsTo({ channels, groups, orders }, o) {
  const columns = [each(channels.at(-1), (c) => Number(o === null || c === o))];
  for (let k = groups.length - 1; k >= 0; k--) {
    const C = channels[k], D = channels[k + 1], G = groups[k], sums = new Float64Array(G);
    const outputs = new Float64Array(D);
    columns[0].forEach((n, c) => { outputs[orders[k][c]] = n; });
    outputs.forEach((n, q) => { sums[partitionOf(q, D, G)] += n; });
    columns.unshift(each(C, (c) => sums[partitionOf(c, C, G)]), outputs);
  }
  return columns;
}

const factorName = (K, k) => (K === 2 ? ["Wᵖ", "Wᵈ"][k] : `W${String(k + 1).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d])}`);

// Some of the paths from input channel i to the output: the channels of each in all columns.
function someOf({ channels, groups, orders }, i, onPath) {
  let found = [[i]];
  groups.forEach((G, k) => {
    const D = channels[k + 1], size = D / G;
    found = found.flatMap((path) => {
      const first = partitionOf(path.at(-1), channels[k], G) * size;
      const after = [...orders[k].keys()].filter((c) => {
        const q = orders[k][c];
        return q >= first && q < first + size && onPath[2 * k + 2][c];
      });
      return after.map((c) => [...path, orders[k][c], c]);
    }).slice(0, SHOWN_PATHS);
  });
  return found;
}

const plural = (n) => (n === 1 ? "1 path" : `${n} paths`);

function told(wiring, i, o, forward, onPath) {
  const { channels, groups } = wiring, K = groups.length, last = channels.at(-1);
  const ends = forward[2 * K];
  if (i === null) {
    const t = wiring.orders[K - 1][o];
    return `Output channel ${o} comes from partition ${partitionOf(t, last, groups[K - 1])} of ${factorName(K, K - 1)}; paths lead ` +
      `to it from ${onPath[0].filter(Boolean).length} of the ${channels[0]} input channels.`;
  }
  const from = `From input channel ${i} (partition ${partitionOf(i, channels[0], groups[0])} of ${factorName(K, 0)})`;
  if (o === null) {
    const reached = ends.filter(Boolean), most = Math.max(...reached), least = Math.min(...reached);
    const count = least === most ? plural(most) : `${least} to ${most} paths`;
    const outputs = reached.length === last ? `the ${last}` : `${reached.length} of the ${last}`;
    return `${from} there ${most === 1 ? "is" : "are"} ${count} to each of ${outputs} output channels.`;
  }
  const some = someOf(wiring, i, onPath).map((path) => groups.map((_, k) =>
    `output ${path[2 * k + 1]} of ${factorName(K, k)}` +
    (k + 1 < K ? `, input ${path[2 * k + 2]} of ${factorName(K, k + 1)}` : "")).join(", "));
  if (!some.length) return `${from} no path leads to output channel ${o}.`;
  const more = ends[o] > some.length ? "; …" : "";
  return `${from} to output channel ${o}: ${plural(ends[o])}, by ${some.join("; by ")}${more}.`;
}

function wiring(figure) {
  const svg = figure.querySelector("svg.wiring"), unit = wiringOf(figure);
  const { channels, groups, partitions, orders } = unit, K = groups.length;
  const ys = svg.dataset.ys.split("|").map((part) => part.split(" ").map(Number));
  const xs = svg.dataset.xs.split(" ").map(Number);
  const from = figure.querySelector(".from"), to = figure.querySelector(".to");
  const status = figure.querySelector(".told"), before = status.textContent;
  const lit = svg.querySelector(".lit");
  const bundled = svg.querySelector(".bundled") !== null;
  const stages = groups.map((_, k) => [...svg.querySelectorAll(`[data-stage="${k + 1}"] path`)]);
  let pinned = false;

  // the place in its column of a channel: its own, or that of its bundle of partitions
  const columns = [...groups.flatMap((G, k) => [[channels[k], G, k], [channels[k + 1], G, k]]), [channels[K], groups[0], K]];
  const place = (j, c) => {
    const [count, G, k] = columns[j];
    return bundled ? Math.floor(partitionOf(c, count, G) / partitions[k]) : c;
  };

  function value(input, count) {
    const number = Number(input.value);
    return input.value !== "" && Number.isInteger(number) && number >= 0 && number < count ? number : null;
  }

  function light(onPath) {
    stages.forEach((wires, k) => {
      if (!bundled) {
        wires.forEach((wire, c) => wire.classList.toggle("on", onPath[2 * k + 2][c]));
        return;
      }
      const pairs = new Set();
      onPath[2 * k + 2].forEach((on, c) => {
        if (on) pairs.add(`${place(2 * k + 1, orders[k][c])} ${place(2 * k + 2, c)}`);
      });
      wires.forEach((wire) => wire.classList.toggle("on", pairs.has(`${wire.dataset.from} ${wire.dataset.to}`)));
    });
    const points = new Set();
    onPath.forEach((column, j) => column.forEach((on, c) => { if (on) points.add(`M${xs[j]} ${ys[j][place(j, c)]}h0`); }));
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", [...points].join(""));
    lit.append(path);
  }

  function show() {
    const i = value(from, channels[0]), o = value(to, channels[K]);
    const chosen = i !== null || o !== null;
    svg.classList.toggle("chosen", chosen);
    stages.flat().forEach((wire) => wire.classList.remove("on"));
    lit.replaceChildren();
    if (!chosen) { status.textContent = before; return; }
    const forward = pathsFrom(unit, i), backward = pathsTo(unit, o);
    const onPath = forward.map((column, j) => Array.from(column, (n, c) => n * backward[j][c] > 0));
    light(onPath);
    status.textContent = told(unit, i, o, forward, onPath);
  }

  // the channel nearest to the pointer: an input on the left, an output on the right
  function point(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const side = at.x < (xs[0] + xs[2 * K]) / 2 ? 0 : 2 * K;
    let best = 0;
    ys[side].forEach((y, k) => { if (Math.abs(y - at.y) < Math.abs(ys[side][best] - at.y)) best = k; });
    const [count, G, k] = columns[side];
    const channel = bundled ? Math.min(count - 1, best * partitions[k] * (count / G)) : best;
    return [side, channel];
  }

  svg.addEventListener("pointermove", (event) => {
    const [side, channel] = point(event);
    if (pinned) {
      if (side === 0) return;
      to.value = channel;
    } else {
      from.value = side === 0 ? channel : "";
      to.value = side === 0 ? "" : channel;
    }
    show();
  });
  svg.addEventListener("click", (event) => {
    const [side, channel] = point(event);
    pinned = !pinned && side === 0;
    if (pinned) { from.value = channel; to.value = ""; }
    show();
  });
  svg.addEventListener("pointerleave", () => {
    if (pinned) { to.value = ""; } else { from.value = to.value = ""; }
    show();
  });
  [from, to].forEach((input) => input.addEventListener("input", show));
  figure.querySelector(".clear").addEventListener("click", () => {
    pinned = false;
    from.value = to.value = "";
    show();
  });
}

document.querySelectorAll("figure.wiring").forEach(wiring);
