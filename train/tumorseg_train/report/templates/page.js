"use strict";
document.documentElement.classList.add("js");

// Tables: a click on a column's title sorts by it, another one the other way round. Without figures, by letters.
const number = (text) => (/^[+-]?\d/.test(text) ? parseFloat(text) : NaN);
for (const table of document.querySelectorAll("table")) {
  const titles = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  titles.forEach((title, column) => {
    if (!title.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const down = title.ariaSort === "ascending" ? -1 : 1;
      titles.forEach((each) => each.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent.trim();
      const order = (one, other) => {
        const a = number(text(one)), b = number(text(other));
        if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1; // what has no figure is last
        return down * (Number.isNaN(a) ? text(one).localeCompare(text(other)) : a - b);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}

// Cases: one at a time, with opacity and zoom.
for (const viewer of document.querySelectorAll(".viewer")) {
  const cases = [...viewer.querySelectorAll(".case")], views = [...viewer.querySelectorAll("[name=show]")];
  const output = (name) => viewer.querySelector(`output[name=${name}]`);
  let at = 0, zoom = 1;
  const draw = () => {
    cases.forEach((each, index) => each.classList.toggle("current", index === at));
    viewer.querySelectorAll(".stage").forEach((stage) => { stage.style.maxHeight = zoom > 1 ? "36rem" : ""; });
    viewer.querySelectorAll(".sheet").forEach((sheet) => { sheet.style.width = `${100 * zoom}%`; });
    output("place").textContent = `${at + 1} of ${cases.length}`;
    output("zoom").textContent = `${zoom}×`;
  };
  const move = (step) => {
    const held = cases[at].contains(document.activeElement);
    at = (at + step + cases.length) % cases.length;
    draw();
    if (held) cases[at].querySelector(".stage").focus();
  };
  const scale = (factor) => { zoom = Math.min(8, Math.max(1, zoom * factor)); draw(); };
  const actions = { next: () => move(1), previous: () => move(-1), in: () => scale(2), out: () => scale(0.5) };
  const keys = { n: "next", p: "previous", "+": "in", "=": "in", "-": "out" };
  viewer.addEventListener("click", (event) => actions[event.target.dataset.do]?.());
  viewer.addEventListener("input", (event) => {
    if (event.target.name === "opacity") viewer.style.setProperty("--opacity", event.target.value / 100);
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = { ArrowRight: "next", ArrowLeft: "previous" }[event.key]; // zoomed in, arrows move the picture
    const name = keys[event.key] ?? (event.target.matches(".stage") && zoom === 1 ? arrow : undefined);
    const view = views[Number(event.key) - 1];
    if (name) actions[name]();
    else if (view) view.checked = true;
    else return;
    event.preventDefault();
  });
  draw();
}
