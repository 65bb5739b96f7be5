"use strict";
// Sorts tables when a column's head is clicked, shows the runs behind a number and unfolds parts for print.
// The page is complete without it.
(() => {
  const value = (cell) => {
    const text = (cell?.dataset.value ?? cell?.dataset.mean ?? cell?.textContent ?? "").trim();
    // The first word counts: "<.001", "1,234", "\u22121.5* [0.2, 3.0]". A run's key is not a number.
    const word = text.replace("\u2212", "-").replace(/^</, "").replaceAll(",", "").split(/[\s[(*\u2020]/)[0];
    const number = word ? Number(word) : NaN;
    return Number.isNaN(number) ? text : number;
  };
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === typeof b ? a.localeCompare(b) : typeof a === "number" ? -1 : 1);
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => order(value(a.cells[column]), value(b.cells[column])));
        body.append(...(up ? rows : rows.reverse()));
      });
    });
  }
  const runs = JSON.parse(document.getElementById("runs").textContent);
  const dialog = document.getElementById("runs-of-cell");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-cell]");
    if (!link || !runs.cells[link.dataset.cell] || !dialog.showModal) return;
    event.preventDefault();
    dialog.querySelector("h2").textContent = link.dataset.title;
    dialog.querySelector("tbody").replaceChildren(...runs.cells[link.dataset.cell].map((run) => {
      const row = document.createElement("tr");
      row.append(...run.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    }));
    dialog.showModal();
  });
  // On paper nothing can be unfolded; the list of all runs stays in results.csv.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .long)")];
    folded.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((part) => { part.open = false; }));
})();
