// Tables sort by their headings, and rows are filtered by their text. The page is complete without this script.
"use strict";

const collator = new Intl.Collator("en", { numeric: true });

function sortKey(cell, order) {
  const text = cell.firstChild ? cell.firstChild.textContent.trim() : "";
  if (order) return order.indexOf(text);
  const value = parseFloat(text);
  return Number.isNaN(value) ? null : value;
}

function sortRows(table, column, heading, descending) {
  const body = table.tBodies[0];
  const order = heading.dataset.order && heading.dataset.order.split(",");
  const isText = heading.dataset.sort === "text";
  const rows = Array.from(body.rows, (row) => {
    const cell = row.cells[column];
    return { row, key: isText ? cell.textContent.trim() : sortKey(cell, order) };
  });
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    const by = isText ? collator.compare(a.key, b.key) : a.key - b.key;
    return descending ? -by : by;
  });
  body.append(...rows.map((each) => each.row));
}

function makeSortable(table) {
  const headings = Array.from(table.tHead.rows[0].cells);
  headings.forEach((heading, column) => {
    if (!heading.dataset.sort) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortRows(table, column, heading, descending);
    });
  });
}

function makeFilter(table) {
  const rows = Array.from(table.tBodies[0].rows);
  const line = document.createElement("div");
  line.className = "filter";
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  input.type = "search";
  input.placeholder = "fail 1p3d 512-";
  label.append("Show rows with ", input);
  line.append(label, count);
  table.closest(".wide").before(line);
  let texts = null;
  input.addEventListener("input", () => {
    texts = texts || rows.map((row) => row.textContent.toLowerCase());
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, number) => {
      row.hidden = !words.every((word) => texts[number].includes(word));
      shown += !row.hidden;
    });
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
}

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let each = target; each; each = each.parentElement) {
    if (each.tagName === "DETAILS") each.open = true;
  }
  target.scrollIntoView();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("table.filtered").forEach(makeFilter);
window.addEventListener("hashchange", openTarget);
openTarget();
