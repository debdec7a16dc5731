"use strict";
(() => {
  document.documentElement.classList.add("script");

  // One operating point, shown in every curve of its group, chosen by slider, arrow keys, mouse or finger.
  for (const group of document.querySelectorAll("[data-curves]")) {
    const data = JSON.parse(document.getElementById(group.dataset.curves).textContent);
    const last = data.readings.length - 1;
    if (last < 0) continue;
    const slider = group.querySelector("input[type=range]");
    const reading = group.querySelector(".reading");
    const charts = [...group.querySelectorAll("svg[data-curve]")];

    const show = (wanted) => {
      const i = Math.max(0, Math.min(last, wanted));
      slider.value = String(i);
      slider.setAttribute("aria-valuetext", data.readings[i]);
      reading.textContent = data.readings[i];
      for (const chart of charts) {
        chart.setAttribute("aria-valuenow", String(i));
        chart.setAttribute("aria-valuetext", data.readings[i]);
        const [x, y] = data.places[chart.dataset.curve][i];
        const marker = chart.querySelector(".marker");
        marker.setAttribute("cx", x);
        marker.setAttribute("cy", y);
        const [across, up] = chart.querySelectorAll(".cross");
        across.setAttribute("y1", y);
        across.setAttribute("y2", y);
        across.setAttribute("x2", x);
        up.setAttribute("x1", x);
        up.setAttribute("x2", x);
        up.setAttribute("y1", y);
      }
    };

    const nearest = (chart, event) => {
      const box = chart.getBoundingClientRect();
      const view = chart.viewBox.baseVal;
      const x = ((event.clientX - box.left) / box.width) * view.width;
      const y = ((event.clientY - box.top) / box.height) * view.height;
      let best = 0, least = Infinity;
      data.places[chart.dataset.curve].forEach(([px, py], i) => {
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [best, least] = [i, distance];
      });
      return best;
    };

    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10,
                   Home: -Infinity, End: Infinity };
    slider.max = String(last);
    slider.addEventListener("input", () => show(Number(slider.value)));
    for (const chart of charts) {
      chart.setAttribute("role", "slider");
      chart.setAttribute("aria-valuemin", "0");
      chart.setAttribute("aria-valuemax", String(last));
      chart.addEventListener("pointermove", (event) => show(nearest(chart, event)));
      chart.addEventListener("pointerdown", (event) => show(nearest(chart, event)));
      chart.addEventListener("keydown", (event) => {
        if (!(event.key in step)) return;
        event.preventDefault();
        show(Number(slider.value) + step[event.key]);
      });
    }
    show(last);
  }

  const numeric = (cell) => {
    const text = cell.dataset.v ?? cell.textContent;
    return text.trim() === "" ? NaN : Number(text);
  };

  // Only the first rows go on paper; what they are follows the order and the filter chosen.
  const limitPaper = (table) => {
    const limit = Number(table.dataset.paperRows || Infinity);
    let n = 0;
    for (const row of table.tBodies[0].rows) {
      if (!row.hidden) n += 1;
      row.classList.toggle("beyond-paper", n > limit);
    }
  };

  for (const table of document.querySelectorAll("table.sorts")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const isNumber = head.classList.contains("n");
        const down = head.getAttribute("aria-sort") === "none" ? isNumber : head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells)
          if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sign = down ? -1 : 1;
        const rows = [...body.rows].map((row) => {
          const cell = row.cells[column];
          return [isNumber ? numeric(cell) : cell.textContent, row];
        });
        rows.sort(([a], [b]) => {
          if (!isNumber) return sign * a.localeCompare(b, "en", { numeric: true });
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
          return sign * (a - b);
        });
        body.append(...rows.map(([, row]) => row));
        limitPaper(table);
      });
    });
    const filters = document.querySelector(`.filters[data-for="${table.id}"]`);
    if (!filters) continue;
    const text = filters.querySelector("input");
    const kind = filters.querySelector("select");
    const count = filters.querySelector("output");
    const filter = () => {
      const wanted = text.value.trim().toLowerCase();
      let shown = 0;
      for (const row of body.rows) {
        const fits = row.cells[0].textContent.toLowerCase().includes(wanted);
        row.hidden = !(fits && (!kind || !kind.value || row.dataset.kind === kind.value));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${body.rows.length} rows`;
      limitPaper(table);
    };
    text.addEventListener("input", filter);
    kind?.addEventListener("change", filter);
    filter();
  }

  for (const box of document.querySelectorAll("input[data-bare]"))
    box.addEventListener("change", () => {
      for (const gallery of document.querySelectorAll(".gallery")) gallery.classList.toggle("bare", !box.checked);
    });
})();
