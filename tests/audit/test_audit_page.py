"""audit.html: what stands in it, and what it does under real key presses."""

import csv
import json
import re

import numpy as np
import pytest

from nnunet_lopsided.audit.decisions import read_decisions
from nnunet_lopsided.audit.stored import read_audit
from tests.browser import BROWSER, Browser

SHOWN = "document.querySelector('.finding:not([hidden]) h3').textContent"
PROGRESS = "document.getElementById('progress').textContent"


def test_three_planes_of_every_sequence_for_every_candidate(written):
    page = (written.audit / "audit.html").read_text(encoding="utf-8")
    cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert len(cards) == len(read_audit(written.audit).candidates) == 50
    for card in cards:
        assert card.count("<figure>") == card.count("data:image/png;base64,") == 6
        for plane in ("axial", "coronal", "sagittal"):
            assert card.count(f"<br>{plane}, slice") == 2
        assert card.count("<b>T1</b>") == card.count("<b>FLAIR</b>") == 3
        assert card.count('class="outline candidate"') == 6  # the centre of the candidate is in every slice
    assert 'class="outline reference"' in page


def test_the_page_asks_for_no_other_file(written):
    page = (written.audit / "audit.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert not re.search(r"https?://", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy


@pytest.fixture
def browser(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium")
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def test_decisions_by_keys_survive_a_reload_and_can_be_saved(written, browser, tmp_path):
    audit = read_audit(written.audit)
    first, second, third, fourth = audit.candidates[:4]

    def head(rank):
        candidate = audit.candidates[rank - 1]
        return f"{rank}. {candidate.case}, candidate {candidate.number}: score {candidate.score:.2f}"

    browser.open(written.audit / "audit.html")
    assert browser.value(SHOWN) == head(1)
    assert browser.value("document.querySelectorAll('.finding:not([hidden])').length") == 1
    browser.press("a", "r", "u")
    assert browser.value(SHOWN) == head(4)
    assert browser.value(PROGRESS) == "candidate 4 of 50; 3 decided: 1 accepted, 1 rejected, 1 unsure"
    browser.press("ArrowLeft", "ArrowLeft")
    assert browser.value(SHOWN) == head(2)
    pressed = "[...document.querySelectorAll('.finding:not([hidden]) button')].map(b => b.ariaPressed).join()"
    assert browser.value(pressed) == "false,true,false"
    browser.press("r")  # the same again: undone, and the reader stays
    assert browser.value(SHOWN) == head(2)
    assert browser.value(PROGRESS) == "candidate 2 of 50; 2 decided: 1 accepted, 0 rejected, 1 unsure"
    browser.press("A")
    browser.press("n")  # the next undecided one is the fourth
    assert browser.value(SHOWN) == head(4)
    browser.press("End", "ArrowRight")
    assert browser.value(SHOWN) == head(50)
    browser.press("Home", "ArrowLeft")
    assert browser.value(SHOWN) == head(1)
    browser.press("x", "1")
    assert browser.value(PROGRESS) == "candidate 1 of 50; 3 decided: 2 accepted, 0 rejected, 1 unsure"
    browser.press("ArrowRight")

    browser.reload()
    assert browser.value(SHOWN) == head(2)
    assert browser.value(PROGRESS) == "candidate 2 of 50; 3 decided: 2 accepted, 0 rejected, 1 unsure"

    expected = {(c.case, c.number): w for c, w in ((first, "accept"), (second, "accept"), (third, "unsure"))}
    table, page = tmp_path / "decisions.csv", tmp_path / "decisions.json"
    assert browser.download("#save-csv", tmp_path) == table.read_text()
    assert read_decisions(table).verdicts == expected
    content = json.loads(browser.download("#save-json", tmp_path))
    assert read_decisions(page).verdicts == expected
    assert content["audit"] == read_decisions(table).audit == audit.id
    assert content["dataset"] == "Dataset511_Cut"
    assert (fourth.case, fourth.number) not in expected


def test_keys_in_a_field_are_not_decisions(written, browser):
    browser.open(written.audit / "audit.html")
    browser.value("document.getElementById('jump').focus()")
    browser.press("a", "ArrowRight")
    assert "0 decided" in browser.value(PROGRESS)
    browser.value("document.getElementById('contours').click()")
    assert browser.value("document.body.classList.contains('bare')")


def test_awkward_case_names_are_quoted(written, browser, tmp_path):
    page = (written.audit / "audit.html").read_text(encoding="utf-8")
    other = tmp_path / "other.html"
    case = read_audit(written.audit).candidates[0].case
    other.write_text(page.replace(f'data-case="{case}"', 'data-case="a,&quot;b&quot;"'), encoding="utf-8")
    browser.open(other)
    browser.press("a")
    (row,) = csv.DictReader(browser.download("#save-csv", tmp_path).splitlines())
    assert row["case"] == 'a,"b"'


def test_pictures_of_two_dimensions(written):
    from nnunet_lopsided.images import Geometry
    from nnunet_lopsided.pages.pictures import Slice

    image = np.arange(60 * 70).reshape(60, 70)
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    shown = Slice(geometry, np.array([30, 40]), np.array([[29, 32], [39, 42]]))
    part = shown.around(image, -1)
    assert part.shape == (45, 45)
    assert part[22, 22] == image[30, 40]
    assert part[0, 0] == image[8, 18]
