"use strict";
// Tables of classes: sorted by the column whose heading is clicked (numbers largest first, text from a to z, unknown
// values last), searched by name, and shown some rows at a time.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = table.querySelectorAll("th[data-column]");
  const body = table.tBodies[0];
  const tools = table.closest("section").querySelector(".tools");
  let page = 0;
  const show = () => {
    if (!tools) return;
    const wanted = tools.querySelector("input").value.trim().toLowerCase();
    const size = Number(tools.querySelector("select").value) || Infinity;
    const fitting = [...body.rows].filter((row) => {
      const fits = row.cells[0].dataset.value.toLowerCase().includes(wanted);
      if (!fits) row.hidden = true;
      return fits;
    });
    const pages = Math.max(1, Math.ceil(fitting.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    const first = page ? page * size : 0;
    fitting.forEach((row, place) => { row.hidden = place < first || place >= first + size; });
    const last = Math.min(first + size, fitting.length);
    tools.querySelector("[role=status]").textContent = fitting.length ? `${first + 1} to ${last} of ${fitting.length}` : "none";
    for (const button of tools.querySelectorAll("button")) {
      button.disabled = button.dataset.step === "1" ? page >= pages - 1 : page <= 0;
    }
  };
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
      body.append(...[...body.rows].sort(order));
      page = 0;
      show();
    });
  }
  if (tools) {
    tools.hidden = false;
    const restart = () => { page = 0; show(); };
    tools.querySelector("input").addEventListener("input", restart);
    tools.querySelector("select").addEventListener("change", restart);
    for (const button of tools.querySelectorAll("button")) {
      button.addEventListener("click", () => { page += Number(button.dataset.step); show(); });
    }
    show();
  }
}
// Paper cannot be opened: what is folded up on the screen is printed, but for confusion matrices, which fill pages.
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details:not(.long)")) part.open = true; });
