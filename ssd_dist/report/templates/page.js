"use strict";
// Sortable tables: a click on a column's button sorts by the cells' data-sort values, numbers as
// numbers; rows without a value stay at the end. Without this script the tables are merely static.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headers.forEach((header, column) => {
    const button = header.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const rows = [...body.rows].map((row) => [row, row.cells[column]?.dataset.sort ?? ""]);
      const numeric = rows.every(([, value]) => value === "" || !isNaN(value));
      // The first click on numbers shows the largest first, on names the first of the alphabet.
      const before = header.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b);
      rows.sort(([, a], [, b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return descending ? compare(b, a) : compare(a, b);
      });
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      body.append(...rows.map(([row]) => row));
    });
  });
}
// On paper, everything is open.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details[data-print]")) details.open = true;
});
