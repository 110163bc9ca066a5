// The answer: class, probabilities, loss; which networks are shown; the page's own check.

const MOST_ANSWERS = 10;

function percent(share) {
  return `${(100 * share).toFixed(2)} %`.replace("-", "−");
}

function showAnswers() {
  const [own, other] = live.results;
  const order = [...own.probabilities.keys()];
  if (order.length > MOST_ANSWERS) {
    order.sort((a, b) => own.probabilities[b] - own.probabilities[a]).splice(MOST_ANSWERS);
  }
  const logits = own.values[own.values.length - 1];
  const heads = ["class", "logit", "probability", ...(other ? ["the other (difference)"] : []), ""];
  document.querySelector(".answers thead tr").replaceChildren(
    ...heads.map((text) => element("th", { scope: "col" }, text)));
  find("answers").replaceChildren(...order.map((k) => {
    const bar = element("i", { className: "bar" });
    bar.style.width = `${7 * own.probabilities[k]}rem`;
    const cells = [logits[k].toFixed(3).replace("-", "−"), percent(own.probabilities[k])];
    if (other) {
      const more = other.probabilities[k] - own.probabilities[k];
      cells.push(`${percent(other.probabilities[k])} (${more < 0 ? "" : "+"}${percent(more)})`);
    }
    const row = element("tr", {}, element("th", { scope: "row" }, data.classes[k]),
      ...cells.map((text) => element("td", {}, text)), element("td", {}, bar));
    row.classList.toggle("chosen", k === own.label);
    return row;
  }));
  find("loss").textContent = own.loss.toFixed(4) + (other ? `; beside ${other.loss.toFixed(4)}` : "");
}

function showCheck() {
  const seconds = (live.results.reduce((sum, { ms }) => sum + ms, 0) / 1000).toFixed(2);
  const found = live.agreements[live.model];
  const agrees = found ? `agrees with NumPy to ${Math.ceil(found.worst)} ulp ` +
    `(${found.tensors} tensors and gradients, on the image that the page came with)` : "comparing with NumPy…";
  find("check").textContent = `Computed here, forward and backward, in ${seconds} s; ${agrees}.`;
}

function showModels() {
  const names = data.models.map(({ name }) => name);
  document.querySelector(".models").hidden = names.length < 2;
  find("model").max = names.length - 1;
  find("model-name").textContent = names[live.model];
  find("model").setAttribute("aria-valuetext", names[live.model]);
}

find("label").append(element("option", { value: -1 }, "most probable"),
  ...data.classes.map((name, k) => element("option", { value: k }, name)));
find("label").value = live.label;
find("beside").append(element("option", { value: "" }, "none"),
  ...data.models.map(({ name }, k) => element("option", { value: k }, name)));
find("label").addEventListener("change", (event) => {
  live.label = Number(event.target.value);
  update();
});
find("model").addEventListener("input", (event) => {
  const before = data.models[live.model].program;
  live.model = Number(event.target.value);
  if (data.models[live.model].program !== before) undoChanges();
  showModels();
  update();
});
find("beside").addEventListener("change", (event) => {
  live.beside = event.target.value === "" ? null : Number(event.target.value);
  update();
});
showModels();
live.listeners.push(showAnswers, showCheck);
