"""The page's script in a real browser: skipped where there is no Chromium."""

import json
import re
import subprocess
from html import unescape

import numpy as np
import pytest

from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.report import report_html
from nnunet_lopsided.evaluation.summary_json import summary_dict
from tests.browser import BROWSER, FLAGS
from tests.pages.chart_reading import BOTTOM, LEFT, RIGHT, TOP

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium")

DRIVER = """
const seen = {};
const rows = (id) => [...document.getElementById(id).tBodies[0].rows];
const names = (id) => rows(id).filter((r) => !r.hidden).map((r) => r.cells[0].textContent + r.cells[1].textContent);
const reading = () => document.querySelector(".reading").textContent;
const pr = document.querySelector("[data-curve=pr]"), froc = document.querySelector("[data-curve=froc]");
const at = (chart) => ["cx", "cy"].map((a) => Number(chart.querySelector(".marker").getAttribute(a)));
const press = (key) => pr.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

seen.start = [reading(), at(pr), at(froc)];
press("Home");
seen.home = [reading(), at(pr), at(froc)];
press("ArrowLeft");
seen.before_first = reading();
press("ArrowRight");
seen.right = reading();
const slider = document.querySelector("input[type=range]");
slider.value = "0";
slider.dispatchEvent(new Event("input"));
seen.roles = [pr.getAttribute("role"), pr.getAttribute("aria-valuenow"), pr.getAttribute("aria-valuetext")];
seen.slider = [reading(), slider.getAttribute("aria-valuetext"), slider.max];
const box = froc.getBoundingClientRect();
froc.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 2, clientY: box.top + 40 }));
seen.hover = reading();

const heads = [...document.getElementById("lesions").tHead.rows[0].cells];
const click = (i) => heads[i].querySelector("button").click();
click(3);
seen.by_size_down = [names("lesions"), heads[3].getAttribute("aria-sort")];
click(3);
seen.by_size_up = [names("lesions"), heads[3].getAttribute("aria-sort")];
click(4);
seen.by_confidence = [names("lesions"), heads[3].getAttribute("aria-sort"), heads[4].getAttribute("aria-sort")];
const filters = document.querySelector(".filters[data-for=lesions]");
filters.querySelector("select").value = "missed";
filters.querySelector("select").dispatchEvent(new Event("change"));
seen.missed = [names("lesions"), filters.querySelector("output").textContent];
filters.querySelector("select").value = "";
filters.querySelector("input").value = "B";
filters.querySelector("input").dispatchEvent(new Event("input"));
seen.case_b = [names("lesions"), filters.querySelector("output").textContent];
document.body.innerHTML = "";
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


def dom(page, tmp_path):
    """The page's elements after its scripts have run."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture
def report(two_cases):
    """Case b gets a second found lesion of 8 voxels."""
    reference, lesion = np.zeros((8, 10, 12), np.uint8), np.zeros((8, 10, 12), np.float32)
    reference[2:4, 2:4, 2:4] = 1
    lesion[2:4, 2:4, 2:4] = 0.6
    lesion[6, 8, 8] = 0.3
    two_cases.write_reference("b.nii.gz", reference)
    two_cases.write_npz("b", lesion)
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0)
    return report_html(result, summary_dict(result))


def test_curves_and_tables_answer(report, tmp_path):
    driven = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report)
    driven = driven.replace("</body>", f"<script>{DRIVER}</script></body>")
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom(driven, tmp_path), re.DOTALL)
    seen = json.loads(unescape(found[1]))
    # Thresholds .8 (lesion a1), .6 (b1), .5 and .3 (false positives); the point at .5 lies inside a straight run.
    strict = (
        "0.800 or more: sensitivity 0.333 (1 of 3 lesions), precision 1.000, 0.00 false positives per case (0 in all)"
    )
    second = (
        "0.600 or more: sensitivity 0.667 (2 of 3 lesions), precision 1.000, 0.00 false positives per case (0 in all)"
    )
    last = (
        "0.300 or more: sensitivity 0.667 (2 of 3 lesions), precision 0.500, 1.00 false positives per case (2 in all)"
    )
    assert seen["start"][0] == last
    # At recall 2/3 and precision 1/2; at no false positive and sensitivity 1/3.
    across, up = (RIGHT - LEFT) / 1.02, (BOTTOM - TOP) / 1.04
    assert seen["start"][1] == pytest.approx([LEFT + across * 2 / 3, BOTTOM - up / 2], abs=0.1)
    assert seen["home"][0] == seen["before_first"] == strict
    assert seen["home"][2] == pytest.approx([LEFT, BOTTOM - up / 3], abs=0.1)
    assert seen["right"] == second
    assert seen["slider"] == [strict, strict, "2"]
    assert seen["roles"] == ["slider", "0", strict]
    assert seen["hover"] == last
    assert seen["by_size_down"] == [["a1", "b1", "a2"], "descending"]
    assert seen["by_size_up"] == [["a2", "b1", "a1"], "ascending"]
    # Undefined values stay at the end.
    assert seen["by_confidence"] == [["a1", "b1", "a2"], "none", "descending"]
    assert seen["missed"] == [["a2"], "1 of 3 rows"]
    assert seen["case_b"] == [["b1"], "1 of 3 rows"]


def test_the_policy_stops_foreign_scripts_but_not_ours(report, tmp_path):
    injected = report.replace("</h1>", "</h1><script>document.title = 'owned'</script><img src=x onerror='owned()'>", 1)
    after = dom(injected, tmp_path)
    assert "<title>Lesion-wise evaluation</title>" in after
    assert '<html lang="en" class="script">' in after
