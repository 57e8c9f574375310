/* Maps over two choices: a table whose cells are tinted, so that every value can be read. */
function mountHeat(root, data, kept) {
  for (const box of root.querySelectorAll("[data-map]")) {
    const key = box.dataset.map, form = box.querySelector("form"), place = box.querySelector(".box");
    const found = data().maps[key];
    const fill = (name, options, chosen) => {
      const select = form.elements[name];
      options.forEach((label, i) => select.append(new Option(label, String(i), i === chosen, i === chosen)));
      const before = kept.get(`${key}/${name}`);
      if (before !== undefined && before < options.length) select.value = String(before);
    };
    fill("y", found.axes, found.y); fill("x", found.axes, found.x); fill("measure", found.measures, 0);
    const draw = () => {
      const [x, y, m] = ["x", "y", "measure"].map(name => Number(form.elements[name].value));
      for (const [name, i] of [["x", x], ["y", y], ["measure", m]]) kept.set(`${key}/${name}`, i);
      place.replaceChildren(heatTable(found, x, y, m));
    };
    form.addEventListener("change", draw);
    form.addEventListener("submit", event => event.preventDefault());
    draw();
  }
}

function heatTable(found, x, y, m) {
  const numeric = (a, b) => a.localeCompare(b, "en", {numeric: true});
  const xs = [...new Set(found.rows.map(row => row.at[x]))].sort(numeric);
  const ys = [...new Set(found.rows.map(row => row.at[y]))].sort(numeric);
  const cell = (a, b) => {
    const values = found.rows.filter(row => row.at[x] === a && row.at[y] === b).map(row => row.values[m]).filter(v => v !== null);
    return values.length ? values.reduce((p, q) => p + q, 0) / values.length : null;
  };
  const grid = ys.map(b => xs.map(a => cell(a, b))), all = grid.flat().filter(v => v !== null);
  const low = Math.min(...all), high = Math.max(...all), higher = found.better[m] === "higher", known = found.better[m] === "higher" || found.better[m] === "lower";
  const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  table.className = "heat";
  const th = (row, label, scope) => {
    const cell = document.createElement("th");
    cell.scope = scope; cell.textContent = label; row.append(cell);
  };
  th(head, `${found.axes[y]} \\ ${found.axes[x]}`, "col");
  xs.forEach(a => th(head, a, "col"));
  ys.forEach((b, i) => {
    const row = body.insertRow();
    th(row, b, "row");
    xs.forEach((_, j) => {
      const value = grid[i][j], one = row.insertCell();
      one.textContent = value === null ? "\u2013" : shown(value);
      if (value === null) return;
      const share = high > low ? (value - low) / (high - low) : 0.5, good = known && !higher ? 1 - share : share;
      one.style.background = `color-mix(in srgb, var(--accent) ${Math.round(4 + 30 * good)}%, var(--paper))`;
      if (known && value === (higher ? high : low)) one.className = "best";
    });
  });
  return table;
}
