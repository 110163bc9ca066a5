// The wiring of a unit: point at a channel, or type its number, to see its paths.

// Everything on the paths from input channel i to output channel o; null stands for all.
function paths(unit, i, o) {
  const { cin, cout, l, s } = unit;
  const perPrimary = cout / l, perSecondary = cout / s;
  const found = { inputs: new Set(), q: new Set(), r: new Set(), t: new Set(), outputs: new Set(), count: 0 };
  for (let c = 0; c < cout; c++) {
    if (o !== null && c !== o) continue;
    const t = reorder(c, cout, s), first = t - (t % perSecondary);
    for (let r = first; r < first + perSecondary; r++) {
      const q = reorder(r, cout, l), partition = Math.floor(q / perPrimary);
      if (i !== null && partition !== Math.floor(i / (cin / l))) continue;
      found.q.add(q); found.r.add(r); found.t.add(t); found.outputs.add(c);
      found.count++;
      if (i !== null) found.inputs.add(i);
      else for (let k = 0; k < cin / l; k++) found.inputs.add(partition * (cin / l) + k);
    }
  }
  return found;
}

function told(unit, i, o, found) {
  const { cin, cout, l, s } = unit;
  const from = `input channel ${i} (primary partition ${Math.floor(i / (cin / l))})`;
  if (o === null) {
    const each = found.count / cout;
    return `From ${from} there ${each === 1 ? "is 1 path" : `are ${each} paths`} to each of the ${cout} output channels: ` +
      `through ${found.q.size} primary outputs to ${new Set([...found.r].map((r) => Math.floor(r / (cout / s)))).size} secondary partitions.`;
  }
  if (i === null) {
    const t = reorder(o, cout, s);
    return `Output channel ${o} comes from secondary partition ${Math.floor(t / (cout / s))}, which holds ${found.r.size} ` +
      `primary outputs; they see all ${found.inputs.size} input channels.`;
  }
  const steps = [...found.r].map((r) => `primary output ${reorder(r, cout, l)}, secondary input ${r}`);
  const t = reorder(o, cout, s);
  return `From ${from} to output channel ${o}: ${steps.length} ${steps.length === 1 ? "path" : "paths"}, by ${steps.join("; by ")}; ` +
    `secondary partition ${Math.floor(t / (cout / s))}, secondary output ${t}.`;
}

function wiring(figure) {
  const svg = figure.querySelector("svg.wiring");
  const unit = Object.fromEntries(["cin", "cout", "l", "s", "primary", "secondary"].map((k) => [k, Number(figure.dataset[k])]));
  const ys = svg.dataset.ys.split("|").map((part) => part.split(" ").map(Number));
  const xs = svg.dataset.xs.split(" ").map(Number);
  const from = figure.querySelector(".from"), to = figure.querySelector(".to");
  const status = figure.querySelector(".told"), before = status.textContent;
  const lit = svg.querySelector(".lit");
  const bundled = svg.querySelector(".bundled") !== null;
  const stages = ["interleave", "restore"].map((name) => [...svg.querySelectorAll(`[data-stage=${name}] path`)]);
  let pinned = false;

  // the place in its column of a channel: its own, or that of its bundle
  const places = [
    (c) => Math.floor(c / (unit.cin / unit.l) / unit.primary),
    (c) => Math.floor(c / (unit.cout / unit.l) / unit.primary),
    (c) => Math.floor(c / (unit.cout / unit.s) / unit.secondary),
    (c) => Math.floor(c / (unit.cout / unit.s) / unit.secondary),
    (c) => Math.floor(c / (unit.cout / unit.l) / unit.primary),
  ].map((place) => (bundled ? place : (c) => c));

  function value(input, count) {
    const number = Number(input.value);
    return input.value !== "" && Number.isInteger(number) && number >= 0 && number < count ? number : null;
  }

  function show() {
    const i = value(from, unit.cin), o = value(to, unit.cout);
    const chosen = i !== null || o !== null;
    svg.classList.toggle("chosen", chosen);
    stages.flat().forEach((path) => path.classList.remove("on"));
    lit.replaceChildren();
    if (!chosen) { status.textContent = before; return; }
    const found = paths(unit, i, o);
    if (bundled) {
      const pairs = new Set();
      for (const r of found.r) pairs.add(`0 ${places[1](reorder(r, unit.cout, unit.l))} ${places[2](r)}`);
      for (const c of found.outputs) pairs.add(`1 ${places[3](reorder(c, unit.cout, unit.s))} ${places[4](c)}`);
      stages.forEach((paths, k) => paths.forEach((path) =>
        path.classList.toggle("on", pairs.has(`${k} ${path.dataset.from} ${path.dataset.to}`))));
    } else {
      for (const r of found.r) stages[0][r].classList.add("on");
      for (const c of found.outputs) stages[1][c].classList.add("on");
    }
    const sets = [found.inputs, found.q, found.r, found.t, found.outputs];
    const points = new Set();
    sets.forEach((set, k) => set.forEach((c) => points.add(`M${xs[k]} ${ys[k][places[k](c)]}h0`)));
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", [...points].join(""));
    lit.append(path);
    status.textContent = told(unit, i, o, found);
  }

  // the channel nearest to the pointer: an input on the left, an output on the right
  function point(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const side = at.x < (xs[1] + xs[2]) / 2 ? 0 : 4;
    let best = 0;
    ys[side].forEach((y, k) => { if (Math.abs(y - at.y) < Math.abs(ys[side][best] - at.y)) best = k; });
    const count = side === 0 ? unit.cin : unit.cout;
    const channel = bundled ? Math.min(count - 1, best * unit.primary * (count / unit.l)) : best;
    return [side, channel];
  }

  svg.addEventListener("pointermove", (event) => {
    const [side, channel] = point(event);
    if (pinned) {
      if (side === 0) return;
      to.value = channel;
    } else {
      from.value = side === 0 ? channel : "";
      to.value = side === 4 ? channel : "";
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
