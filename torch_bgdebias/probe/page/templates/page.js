"use strict";
// Sort a table by the column whose heading is clicked; numbers largest first, text from a to z, unknown values last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = table.querySelectorAll("th[data-column]");
  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const column = Number(head.dataset.column);
      const numeric = head.dataset.kind === "number";
      const before = head.getAttribute("aria-sort");
      const ascending = before === "none" ? !numeric : before === "descending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[column].dataset.value;
        return numeric ? (text === "" ? NaN : Number(text)) : text;
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (numeric) {
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return ascending ? x - y : y - x;
        }
        return (ascending ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  }
}
