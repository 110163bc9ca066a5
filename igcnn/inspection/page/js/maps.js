// Feature maps and gradients of a layer: hover for values, choose a number to see where it is from.

// The tensor that a layer makes.
function tensorOf(program, layer) {
  const step = program.steps.findLast((each) => each.layer === layer);
  return step ? step.output : null;
}

class Maps {
  constructor(place) {
    this.layer = place.dataset.layer;
    this.tensor = tensorOf(programOf(live.model), this.layer);
    this.index = null; // of the chosen number
    this.kind = element("select", {}, element("option", { value: "values" }, "output"),
      element("option", { value: "gradients" }, "gradient of the loss"));
    this.figures = element("div", { className: "beside" });
    this.pointed = element("output", { className: "pointed" }, "Point at a map to see its values; click a pixel to see its sum.");
    this.inputs = ["channel", "row", "column"].map((name) =>
      element("input", { type: "number", min: 0, "aria-label": `${name} of the number to write out` }));
    this.lines = element("div", { role: "status", className: "lines" });
    const controls = element("div", { className: "controls" }, element("label", {}, "show ", this.kind),
      ...this.inputs.map((input, k) => element("label", {}, `${["channel", "row", "column"][k]} `, input)));
    this.editor = editorOf(this);
    place.append(controls, this.figures, element("p", {}, this.pointed), this.lines, this.editor.place);
    this.kind.addEventListener("change", () => this.show());
    this.inputs.forEach((input) => input.addEventListener("input", () => {
      const index = this.inputs.map(({ value }) => value);
      if (!index.includes("")) this.choose(index.map(Number));
    }));
    this.show();
  }

  // What is drawn: [caption, values] of each network, and their difference.
  pictures() {
    const kind = this.kind.value;
    const found = live.results.map((result) => {
      const tensor = tensorOf(programOf(result.model), this.layer);
      const values = tensor === null ? null : result[kind][tensor];
      return [data.models[result.model].name, values, tensor];
    }).filter(([, values]) => values);
    const same = found.length === 2 && found[0][1].length === found[1][1].length;
    if (same) found.push(["difference: second minus first", each(found[0][1].length, (k) => found[1][1][k] - found[0][1][k])]);
    return found;
  }

  show() {
    this.tensor = tensorOf(programOf(live.model), this.layer);
    const pictures = this.pictures();
    if (!pictures.length || this.tensor === null) {
      this.figures.replaceChildren("The network shown does not have this layer.");
      return;
    }
    const shared = rangeOf(pictures.slice(0, 2).map(([, values]) => values));
    this.figures.replaceChildren(...pictures.map(([name, values, tensor], k) =>
      this.picture(live.results.length > 1 ? name : "", values, tensor, k < 2 ? shared : rangeOf([values], true))));
    this.write();
    this.editor.refresh();
  }

  picture(name, values, tensor, range) {
    const shape = programOf(live.model).shapes[this.tensor];
    const drawn = element("canvas", { className: "maps", role: "img", "aria-label":
      `${shape[0]} maps of ${shape[1]}×${shape[2]} pixels${name ? `, ${name}` : ""}` });
    const columns = paintMaps(drawn, values, shape, range);
    drawn.style.width = `${drawn.width * Math.max(1, Math.min(8, Math.floor((live.results.length > 1 ? 340 : 700) / drawn.width)))}px`;
    const bar = element("span", { className: "scale" }, element("span", { className: "low" }),
      element("i"), element("span", { className: "high" }));
    paintBar(bar, range);
    drawn.addEventListener("pointermove", (event) => this.point(this.at(event, drawn, shape, columns), values));
    drawn.addEventListener("click", (event) => {
      const index = this.at(event, drawn, shape, columns);
      if (index) this.choose(index);
    });
    return element("figure", {}, drawn, element("figcaption", {},
      ...(name ? [name, element("br")] : []), bar, ` ${shape[0]} channels, row by row`));
  }

  // [channel, row, column] under the pointer, null between the maps.
  at(event, drawn, [C, H, W], columns) {
    const box = drawn.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * drawn.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * drawn.height);
    const channel = Math.floor(y / (H + 1)) * columns + Math.floor(x / (W + 1));
    const inside = x % (W + 1) < W && y % (H + 1) < H && channel < C && x >= 0 && y >= 0;
    return inside ? [channel, y % (H + 1), x % (W + 1)] : null;
  }

  point(index, values) {
    if (!index) return;
    const [c, i, j] = index, [, H, W] = programOf(live.model).shapes[this.tensor];
    this.pointed.textContent = `channel ${c}, row ${i}, column ${j}: ${shown(values[(c * H + i) * W + j], 6)}`;
  }

  choose(index) {
    const shape = programOf(live.model).shapes[this.tensor];
    this.index = index.every((k, axis) => Number.isInteger(k) && k >= 0 && k < shape[axis]) ? index : null;
    if (this.index) this.inputs.forEach((input, axis) => { input.value = index[axis]; });
    this.write();
    this.editor.refresh();
  }

  // The chosen number written out, the gradient that reaches it, and its receptive field.
  write() {
    if (!this.index) {
      this.lines.replaceChildren();
      showField(null);
      return;
    }
    const [c, i, j] = this.index, program = programOf(live.model), [own] = live.results;
    const [, H, W] = program.shapes[this.tensor];
    const gradient = own.gradients[this.tensor];
    const silent = (live.silenced[this.tensor] || []).includes(c);
    const field = receptiveField(program, this.tensor, i, j);
    const lines = writeOut(program, this.layer, own, live.weights[live.model], this.index);
    const arriving = gradient ? shown(gradient[(c * H + i) * W + j], 6) : "none";
    const texts = lines.map((line, k) => lineText(line, silent && k === lines.length - 1));
    this.lines.replaceChildren(...texts, element("p", {},
      `The gradient of the loss that reaches it is ${arriving}. It depends on ${field[1] - field[0] + 1}×` +
      `${field[3] - field[2] + 1} pixels of the image, marked there.`));
    showField(field);
  }
}

// Marks pixels of the image: [top, bottom, left, right], null for none.
function showField(field) {
  const mark = find("field");
  mark.hidden = !field;
  if (!field) return;
  const [top, bottom, left, right] = field;
  mark.style.top = `${(100 * top) / HEIGHT}%`;
  mark.style.height = `${(100 * (bottom - top + 1)) / HEIGHT}%`;
  mark.style.left = `${(100 * left) / WIDTH}%`;
  mark.style.width = `${(100 * (right - left + 1)) / WIDTH}%`;
}

const cards = new Map();
document.querySelectorAll(".maps-live").forEach((place) => {
  const card = place.closest("details");
  const open = () => {
    if (!card.open || !live.results.length) return;
    if (cards.has(place)) cards.get(place).show(); else cards.set(place, new Maps(place));
  };
  card.addEventListener("toggle", open);
  live.listeners.push(open);
});
