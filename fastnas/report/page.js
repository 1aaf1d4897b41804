"use strict";

// A slider goes through the epochs of one search: α as tables, β and the path in the trellis.
for (const time of document.querySelectorAll(".time")) {
  const frames = JSON.parse(document.getElementById(time.dataset.frames).textContent);
  const slider = time.querySelector("input"), output = time.querySelector("output"), button = time.querySelector("button");
  const trellis = time.closest("section").querySelector("[data-trellis]");
  const tables = [...time.querySelectorAll("table")].map((table) => ({
    cell: frames.cells[table.dataset.cell],
    fields: [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]),
  }));
  let timer = 0;

  function show(index) {
    for (const { cell, fields } of tables) {
      const kept = new Set(cell.kept[index].map(([edge, candidate]) => `${edge},${candidate}`));
      cell.weights[index].forEach((weights, edge) =>
        weights.forEach((weight, candidate) => {
          const field = fields[edge][candidate];
          field.textContent = (weight / 10).toFixed(1);
          field.style.setProperty("--w", (weight / 1000 / frames.high).toFixed(3));
          field.classList.toggle("kept", kept.has(`${edge},${candidate}`));
        }),
      );
    }
    if (trellis && frames.ways.length) move(trellis, frames.ways[index], frames.paths[index]);
    const text = `${frames.epochs[index]} of ${frames.of}`;
    output.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
    button.setAttribute("aria-pressed", "false");
  }

  function play() {
    if (slider.value === slider.max) slider.value = 0;
    show(Number(slider.value));
    button.textContent = "Stop";
    button.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show(Number(slider.value));
      if (slider.value === slider.max) stop();
    }, Math.min(500, 8000 / frames.epochs.length));
  }

  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", () => (timer ? stop() : play()));
  show(Number(slider.value));
}

// Ways as wide and as dark as fastnas.genotype.trellis draws them; the path's band and its end go along.
function move(trellis, ways, path) {
  const part = (name) => trellis.querySelector(`[data-part="${name}"]`);
  const middle = (column, scale) => {
    const box = part(`node-${column}-${scale}`).getBBox();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  ways.forEach((layer, column) =>
    layer.forEach((targets, scale) =>
      targets.forEach((thousandths, direction) => {
        const way = part(`way-${column}-${scale}-${scale + direction - 1}`), strength = thousandths / 1000;
        if (!way) return;
        Object.assign(way.firstElementChild.style, { strokeWidth: 0.5 + 5 * strength, strokeOpacity: 0.12 + 0.88 * strength });
      }),
    ),
  );
  path.forEach((chosen, column) => {
    for (let scale = 0; part(`node-${column}-${scale}`); ++scale)
      part(`node-${column}-${scale}`).firstElementChild.style.fill = scale === chosen ? "var(--path)" : "var(--idle)";
  });
  const head = part("head"), points = path.map((scale, column) => middle(column, scale));
  const end = points[points.length - 1], box = head.getBBox();
  const shift = `translate(0 ${end[1] - box.y - box.height / 2})`;
  head.setAttribute("transform", shift);
  part("head-text").setAttribute("transform", shift);
  const line = [...points, [box.x + box.width / 2, end[1]]].map(([x, y]) => `${x} ${y}`);
  part("band").firstElementChild.setAttribute("d", `M ${line.join(" L ")}`);
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
  });
}
