"use strict";
(async () => {
  const darkColours = JSON.parse(document.getElementById("dark").textContent);
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll("figure")];
  let printing = false;

  const isDark = () => prefersDark.matches && !printing;

  // A colour as "#rrggbb" or "#rrggbbaa"; any other text is left alone.
  function themed(value) {
    if (typeof value === "string" && /^#[0-9a-f]{6}([0-9a-f]{2})?$/i.test(value)) {
      const dark = darkColours[value.slice(0, 7).toLowerCase()];
      return isDark() && dark ? dark + value.slice(7) : value;
    }
    if (Array.isArray(value)) return value.map(themed);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, themed(part)]));
    }
    return value;
  }

  function shownTraces(figure, data) {
    const view = Number(figure.querySelector("select")?.value ?? 0);
    const boxes = [...figure.querySelectorAll("input")];
    return data.map(({ meta = {} }) =>
      (meta.view === undefined || meta.view === view) &&
      (meta.toggle === undefined || !boxes.length || boxes[meta.toggle].checked));
  }

  function draw(figure) {
    const { data, layout } = themed(JSON.parse(figure.querySelector(".figure").textContent));
    const visible = shownTraces(figure, data);
    data.forEach((trace, number) => { trace.visible = visible[number]; });
    for (const key of figure.querySelectorAll(".key")) key.style.color = themed(key.dataset.colour);
    const chart = figure.querySelector(".chart");
    layout.height = chart.clientHeight || parseInt(chart.style.height, 10);
    layout.width = chart.clientWidth;
    chart.classList.add("drawn");
    return Plotly.react(chart, data, layout, { displayModeBar: false });
  }

  function say(text) { document.getElementById("status").textContent = text; }

  function sort(head) {
    const table = head.closest("table");
    const column = [...head.parentElement.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    const direction = up ? 1 : -1;
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, number: cell.dataset.number, text: cell.textContent };
    });
    keyed.sort((a, b) => {
      const empty = Number(a.text === "") - Number(b.text === "");
      if (empty) return empty; // empty cells come last in either direction
      if (a.number !== undefined && b.number !== undefined) {
        return direction * (Number(a.number) - Number(b.number) || 0);
      }
      return direction * a.text.localeCompare(b.text, undefined, { numeric: true });
    });
    body.append(...keyed.map(({ row }) => row));
    say(`Sorted by ${head.textContent.trim()}, ${up ? "ascending" : "descending"}`);
  }

  for (const head of document.querySelectorAll("thead th")) {
    head.querySelector("button").addEventListener("click", () => sort(head));
  }
  for (const button of document.querySelectorAll(".all")) {
    button.addEventListener("click", () => {
      const boxes = [...button.parentElement.querySelectorAll("input")];
      const checked = !boxes.some((box) => box.checked);
      for (const box of boxes) box.checked = checked;
      boxes[0].dispatchEvent(new Event("change", { bubbles: true }));
    });
  }
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        say("Copied");
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      } catch {
        getSelection().selectAllChildren(code); // a page from disk may not be let at the clipboard
      }
    });
  }

  if (typeof DecompressionStream === "undefined") {
    say("This browser is too old for the charts; the tables have their numbers");
    return;
  }
  const packed = atob(document.getElementById("plotly").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(unpacked).text();
  document.head.append(library);

  const drawAll = () => Promise.all(figures.map(draw));
  await drawAll();
  document.documentElement.dataset.ready = "yes";
  for (const figure of figures) figure.addEventListener("change", () => draw(figure));
  prefersDark.addEventListener("change", drawAll);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone hides its address bar
    width = innerWidth;
    drawAll();
  });
  const closed = [];
  addEventListener("beforeprint", () => {
    printing = true;
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      closed.push(part);
    }
    for (const chart of document.querySelectorAll(".chart")) chart.style.width = "680px";
    drawAll();
  });
  addEventListener("afterprint", () => {
    printing = false;
    while (closed.length) closed.pop().open = false;
    for (const chart of document.querySelectorAll(".chart")) chart.style.width = "";
    drawAll();
  });
})();
