// Changes to the network: channels that are silenced, weights of another value.

// The controls of a layer: silence the chosen channel, change a weight.
function editorOf(maps) {
  const button = element("button", { type: "button" });
  const array = element("select", { "aria-label": "array" });
  const place = element("input", { type: "number", min: 0, value: 0, "aria-label": "place in the array" });
  const value = element("input", { type: "number", step: "any", "aria-label": "value of the weight" });
  const told = element("span", { className: "quiet" });
  const weight = element("span", { className: "controls" }, "weight ", array, place, " = ", value, told);
  const program = () => programOf(live.model);
  const own = () => program().steps.filter(({ layer }) => layer === maps.layer)
    .flatMap(({ arrays }) => Object.values(arrays));

  function at() {
    const number = Number(array.value), offset = offsetOf(program(), number), k = Number(place.value);
    return Number.isInteger(k) && k >= 0 && k < sizeOf(program(), number) ? offset + k : null;
  }

  function refresh() {
    const channel = maps.index ? maps.index[0] : null;
    const silent = channel !== null && (live.silenced[maps.tensor] || []).includes(channel);
    button.disabled = channel === null;
    button.textContent = channel === null ? "Silence a channel: choose one first"
      : `${silent ? "Restore" : "Silence"} channel ${channel}`;
    const numbers = own();
    weight.hidden = !numbers.length;
    if (!numbers.length) return;
    if (array.options.length !== numbers.length) {
      array.replaceChildren(...numbers.map((number) => element("option", { value: number },
        `${nameOf(program(), number)} ${program().arrays[number].shape.join("×")}`)));
    }
    const k = at();
    if (document.activeElement !== value) value.value = k === null ? "" : live.weights[live.model][k];
    const gradient = k === null ? null : live.results[0].ofWeights[k];
    told.textContent = k === null ? "there is no such weight" : `gradient of the loss ${shown(gradient)}`;
  }

  button.addEventListener("click", () => {
    toggleChannel(maps.tensor, maps.index[0]);
    refresh();
  });
  [array, place].forEach((control) => control.addEventListener("input", refresh));
  value.addEventListener("input", () => {
    const k = at();
    if (k !== null && value.value !== "") changeWeight(k, Number(value.value), Number(array.value), Number(place.value));
  });
  return { place: element("div", { className: "controls editor" }, button, weight), refresh };
}

function sizeOf(program, number) {
  return program.arrays[number].shape.reduce((product, side) => product * side, 1);
}

function offsetOf(program, number) {
  let offset = 0;
  for (let k = 0; k < number; k++) offset += sizeOf(program, k);
  return offset;
}

function nameOf(program, number) {
  return program.arrays[number].name || `array ${number}`;
}

function toggleChannel(tensor, channel) {
  const before = live.silenced[tensor] || [];
  const after = before.includes(channel) ? before.filter((c) => c !== channel) : [...before, channel];
  if (after.length) live.silenced[tensor] = after; else delete live.silenced[tensor];
  showChanges();
  update();
}

// Changes a weight of the network that is shown.
function changeWeight(at, value, array, place) {
  live.weights[live.model][at] = value;
  live.edits = live.edits.filter((edit) => edit.at !== at || edit.model !== live.model);
  if (live.originals[live.model][at] !== live.weights[live.model][at]) {
    live.edits.push({ model: live.model, at, array, place });
  }
  showChanges();
  update();
}

function undoChanges() {
  live.silenced = {};
  live.edits = [];
  live.weights = live.originals.map((weights) => weights.slice());
  showChanges();
  update();
}

function showChanges() {
  const program = programOf(live.model);
  const layerOf = (tensor) => program.steps.find(({ output }) => output === tensor).layer;
  const told = Object.entries(live.silenced).map(([tensor, channels]) =>
    `${layerOf(Number(tensor))}: silenced channel ${channels.join(", ")}`);
  for (const { model, at, array, place } of live.edits) {
    told.push(`${data.models[model].name}: ${nameOf(programOf(model), array)}[${place}] is ` +
      `${shown(live.weights[model][at], 6)}, was ${shown(live.originals[model][at], 6)}`);
  }
  find("changes").hidden = !told.length;
  find("changes").querySelector("ul").replaceChildren(...told.map((text) => element("li", {}, text)));
}

find("undo").addEventListener("click", undoChanges);
