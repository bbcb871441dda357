import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from page_samples import (
    HEADED,
    HOSTILE,
    write_budget,
    write_retraining,
    write_sweep,
    write_transfer,
)

from secateurs.report import write_page

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=30000", "--window-size=390,800"),
)

BEFORE = """<script>
window.complaints = [];
addEventListener("error", (event) => complaints.push(String(event.message)), true);
addEventListener("unhandledrejection", (event) => complaints.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => complaints.push(event.violatedDirective));
</script>"""

DRIVER = """<script>
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (!document.documentElement.dataset.ready) await wait(50);
  const [curves, layers] = document.querySelectorAll("figure");
  const chart = curves.querySelector(".chart");
  const shown = () => chart.data.map((trace) => trace.visible);
  const found = { complaints, hurt: window.hurt ?? null, before: shown() };
  const charts = [...document.querySelectorAll(".chart")];
  found.drawn = charts.map((each) => each.querySelector("svg") !== null);
  found.wide = document.documentElement.scrollWidth > innerWidth;
  const box = curves.querySelectorAll("input")[1];
  box.click();
  await wait(200);
  found.after = shown();
  found.lines = chart.querySelectorAll(".scatterlayer .trace path.js-line").length;
  box.click();
  await wait(200);
  found.again = shown();
  Plotly.Fx.hover(chart, [{ curveNumber: 1, pointNumber: 1 }]);
  await wait(200);
  found.hover = chart.querySelector(".hoverlayer").textContent;
  const tick = [...layers.querySelectorAll(".ytick text")].map((text) => text.textContent);
  found.ticks = [tick, layers.querySelectorAll("tspan[style*=bold], b").length];
  const table = document.querySelector(".table table");
  const head = [...table.querySelectorAll("th")].find((th) => th.textContent.trim() === "top-1 %");
  const column = [...head.parentElement.children].indexOf(head);
  const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
  const numbers = () => cells().map(Number);
  head.querySelector("button").click();
  found.ascending = numbers();
  found.said = head.getAttribute("aria-sort");
  head.querySelector("button").click();
  found.descending = numbers();
  const select = document.querySelector("#part-2 select");
  const heat = document.querySelector("#part-2 .chart");
  select.value = "1";
  select.dispatchEvent(new Event("change", { bubbles: true }));
  await wait(200);
  found.view = heat.data.filter((trace) => trace.visible).map((trace) => trace.meta.view);
  const light = chart.data[1].line.color;
  dispatchEvent(new Event("beforeprint"));
  await wait(200);
  found.opened = document.querySelectorAll("details:not([open])").length;
  dispatchEvent(new Event("afterprint"));
  await wait(200);
  found.colour = [light, chart.data[1].line.color];
  const outcome = document.createElement("pre");
  outcome.id = "outcome";
  outcome.textContent = encodeURIComponent(JSON.stringify(found));
  document.body.append(outcome);
})();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_it_works_in_a_browser(tmp_path: Path) -> None:
    runs = [
        write_sweep(tmp_path / "sweep", HOSTILE),
        write_transfer(tmp_path / "transfer"),
        write_retraining(tmp_path / "retrain"),
        write_budget(tmp_path / "budget"),
    ]
    path = write_page(runs, tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    text = text.replace("<style>", f"{BEFORE}<style>", 1).replace("</body>", f"{DRIVER}</body>", 1)
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM or "",
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = read_outcome(done.stdout)
    assert found["complaints"] == [] and found["hurt"] is None
    assert found["drawn"] and all(found["drawn"])
    assert not found["wide"], "a phone would scroll sideways"
    assert found["before"] == [True] * 5 == found["again"]
    assert found["after"] == [True, True, False, False, True] and found["lines"] >= 2
    assert "10% pruned" in found["hover"] and "95% interval" in found["hover"]
    assert "weight" in found["hover"]
    assert found["ticks"] == [[HEADED, "first.weight"], 0]
    assert found["ascending"] == sorted(found["ascending"]) != found["descending"]
    assert found["descending"] == sorted(found["descending"], reverse=True)
    assert found["said"] == "ascending"
    assert found["view"] and set(found["view"]) == {1}
    assert found["opened"] == 0
    assert found["colour"][0] == found["colour"][1]


def read_outcome(dom: str) -> dict[str, Any]:
    from urllib.parse import unquote

    assert 'id="outcome">' in dom, "the page was not ready in time"
    return json.loads(unquote(dom.split('id="outcome">')[1].split("<")[0]))
