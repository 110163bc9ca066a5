// The table of layers: filter by name or operation, sort by a column.

function layerTable(table) {
  const rows = [...table.querySelectorAll("tbody tr[data-layer]")];
  const bodies = [...table.tBodies], homes = new Map(rows.map((row) => [row, row.parentElement]));
  const filter = document.getElementById("filter"), status = document.getElementById("filtered");
  let sorted = null, descending = true;

  function show() {
    const text = filter.value.trim().toLowerCase();
    rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(text); });
    const left = rows.filter((row) => !row.hidden).length;
    status.textContent = text ? `${left} of ${rows.length} layers` : "";
    bodies.forEach((body) => {
      body.querySelector(".stage").hidden = sorted !== null || ![...body.rows].some((row) => row.dataset.layer && !row.hidden);
    });
  }

  function sort(key) {
    if (sorted === key && !descending) sorted = null; // third time: as executed
    else { descending = sorted !== key; sorted = key; }
    table.querySelectorAll("th[data-sort]").forEach((head) => {
      head.setAttribute("aria-sort", head.dataset.sort !== sorted ? "none" : descending ? "descending" : "ascending");
    });
    if (sorted === null) rows.forEach((row) => homes.get(row).append(row));
    else {
      const number = (row) => Number(row.dataset[sorted]), sign = descending ? -1 : 1;
      const order = sorted === "name" ? (a, b) => -sign * a.dataset.layer.localeCompare(b.dataset.layer, "en", { numeric: true })
        : (a, b) => sign * (number(a) - number(b));
      bodies[0].append(...[...rows].sort(order));
    }
    show();
  }

  table.querySelectorAll("th[data-sort]").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head.dataset.sort));
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
  });
  filter.addEventListener("input", show);
}

document.querySelectorAll("table.layers").forEach(layerTable);
