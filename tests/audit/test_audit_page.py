"""audit.html: what stands in it, and what it does under real key presses."""

import base64
import csv
import io
import json
import re

import numpy as np
import PIL.Image
import pytest

from nnunet_lopsided.audit.candidate_pictures import _planes
from nnunet_lopsided.audit.decisions import read_decisions
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.images import Geometry
from nnunet_lopsided.pages.pictures import Slice
from tests.browser import BROWSER, Browser

SHOWN = "document.querySelector('.finding:not([hidden]) h3').textContent"
PROGRESS = "document.getElementById('progress').textContent"


def test_three_planes_of_every_sequence_for_every_candidate(written):
    page = (written.audit / "audit.html").read_text(encoding="utf-8")
    cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert len(cards) == len(read_audit(written.audit).candidates) == 50
    for card in cards:
        content = json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', card)[1])
        assert content["channels"] == ["T1", "FLAIR"]
        assert [plane["name"] for plane in content["planes"]] == ["axial", "coronal", "sagittal"]
        for plane in content["planes"]:
            n = len(plane["reference"])
            assert len(plane["candidate"]) == n
            assert plane["candidate"][plane["centre"]]  # the centre of the candidate is in every plane
            for strip in plane["strips"]:
                png = PIL.Image.open(io.BytesIO(base64.b64decode(strip)))
                assert png.size == (plane["shape"][1], n * plane["shape"][0])
        axial, *others = content["planes"]
        assert (axial["slices"], len(axial["candidate"])) == (6, 6)  # voxels are thickest along it
        assert all(len(plane["candidate"]) == 1 for plane in others)
    assert re.search(r'"reference":\["[^"]', page)
    assert "contrast, FLAIR" in page
    assert "channel 0" not in page


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
    browser.press("a", "r", "s")
    assert browser.value(SHOWN) == head(4)
    assert browser.value(PROGRESS) == "candidate 4 of 50; 3 decided: 1 accepted, 1 rejected, 1 unsure"
    browser.press("ArrowLeft", "ArrowLeft")
    assert browser.value(SHOWN) == head(2)
    pressed = "[...document.querySelectorAll('.finding:not([hidden]) button')].map(b => b.ariaPressed).join()"
    assert browser.value(pressed) == "false,true,false"
    browser.press("Backspace")  # no decision, and the reader stays
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


def test_undo_takes_back_and_the_same_key_again_does_not(written, browser):
    browser.open(written.audit / "audit.html")
    browser.press("a", "a")
    assert browser.value(PROGRESS) == "candidate 3 of 50; 2 decided: 2 accepted, 0 rejected, 0 unsure"
    browser.press("u")
    assert browser.value(PROGRESS) == "candidate 2 of 50; 1 decided: 1 accepted, 0 rejected, 0 unsure"
    browser.press("ArrowLeft", "r", "u")  # accepted before it was rejected, and so again
    assert browser.value(PROGRESS) == "candidate 1 of 50; 1 decided: 1 accepted, 0 rejected, 0 unsure"
    browser.press("u", "u")
    assert browser.value(PROGRESS) == "candidate 1 of 50; 0 decided: 0 accepted, 0 rejected, 0 unsure"
    assert browser.value("document.getElementById('told').textContent") == "nothing to undo"
    browser.press("a", "ArrowLeft", "a")  # confirmed, not undone
    assert browser.value(PROGRESS) == "candidate 2 of 50; 1 decided: 1 accepted, 0 rejected, 0 unsure"


def test_slices_zoom_and_window(written, browser):
    browser.open(written.audit / "audit.html")
    caption = "document.querySelector('.finding:not([hidden]) figcaption span').textContent"
    before = browser.value(caption)
    browser.press(*["ArrowUp"] * 6)
    assert browser.value(caption) == "axial, slice 0 (0 to 5)" != before
    browser.press("ArrowDown")
    assert browser.value(caption) == "axial, slice 1 (0 to 5)"
    picture = "document.querySelector('.finding:not([hidden]) .slice svg')"
    browser.value(f"{picture}.scrollIntoView({{ block: 'center' }})")
    left, top = browser.value(f"(() => {{ const b = {picture}.getBoundingClientRect(); return [b.x, b.y]; }})()")
    at = {"x": left + 60, "y": top + 60}
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=120, **at)
    assert browser.until(f"{caption}.includes('slice 2')")
    assert browser.value(caption) == "axial, slice 2 (0 to 5)"
    whole = browser.value(f"{picture}.getAttribute('viewBox')")
    browser.press("+")
    width = float(whole.split()[2]) / 1.25
    assert float(browser.value(f"{picture}.getAttribute('viewBox')").split()[2]) == pytest.approx(width)
    slope = "document.querySelector('#window-0 feFuncR').getAttribute('slope')"
    assert browser.value(slope) == "1"
    browser.call("Input.dispatchMouseEvent", type="mousePressed", button="left", buttons=1, clickCount=1, **at)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, x=at["x"] - 50, y=at["y"])
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", button="left", x=at["x"] - 50, y=at["y"])
    assert float(browser.value(slope)) == pytest.approx(np.exp(0.5), rel=1e-6)  # a narrower window
    browser.press("0")
    assert (browser.value(slope), browser.value(f"{picture}.getAttribute('viewBox')")) == ("1", whole)
    browser.press("ArrowRight")
    assert browser.value("document.querySelectorAll('image').length") == 6  # those of one candidate


def test_go_to_a_number_and_order_by_case(written, browser):
    audit = read_audit(written.audit)
    browser.open(written.audit / "audit.html")
    browser.press("g", "1", "7", "Enter")
    assert browser.value(SHOWN).startswith(f"17. {audit.candidates[16].case}, ")
    browser.press("r")  # keys work at once
    assert browser.value(PROGRESS).endswith("1 decided: 0 accepted, 1 rejected, 0 unsure")
    browser.press("g", "9", "9", "Enter")
    assert browser.value("document.getElementById('told').textContent") == "this page shows no candidate 99"
    choose(browser, "order", "case")
    browser.press("Home")
    cases = []
    for _ in range(50):
        cases.append(browser.value("document.querySelector('.finding:not([hidden])').dataset.case"))
        browser.press("ArrowRight")
    assert cases == sorted(cases)
    assert len(set(cases)) > 5


def test_moving_on_shows_the_top_of_the_card(written, browser):
    browser.open(written.audit / "audit.html")
    browser.value("window.scrollTo(0, 100000)")
    browser.press("a")
    card = "document.querySelector('.finding:not([hidden])').getBoundingClientRect()"
    bar = "document.querySelector('.bar').getBoundingClientRect()"
    assert browser.value(f"{bar}.bottom <= {card}.top + 1 && {card}.top < innerHeight / 2")


def choose(browser, element, value):
    browser.value(
        f"(() => {{ const e = document.getElementById({element!r}); e.value = {value!r};"
        "e.dispatchEvent(new Event('change')); })()"
    )


def write_in(browser, element, text):
    browser.value(f"document.querySelector({element!r}).focus()")
    browser.press(*text, "Enter")


def test_readers_comments_and_files(written, browser, tmp_path):
    audit = read_audit(written.audit)
    first, second, third = audit.candidates[:3]
    browser.open(written.audit / "audit.html")
    browser.press("a")
    write_in(browser, "#reader", "Ada")
    browser.press("c", *"=1+1, no", "Enter")
    browser.press("r")
    browser.press("c", *"vessel", "Enter")
    browser.download("#save-csv", tmp_path)
    read = read_decisions(tmp_path / "decisions.csv")
    assert read.verdicts == {first.key: "accept", second.key: "reject"}
    assert (read.remark(first.key, "reader"), read.remark(second.key, "comment")) == ("Ada", "=1+1, no")
    assert read.remark(third.key, "comment") == "vessel"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", read.remark(first.key, "time"))
    choose(browser, "reader", "Bob")
    assert "; 0 decided" in browser.value(PROGRESS)
    browser.press("s")
    browser.reload()
    assert browser.value("document.getElementById('reader').value") == "Bob"
    assert browser.value(PROGRESS) == "candidate 2 of 50; 1 decided: 0 accepted, 0 rejected, 1 unsure"

    rows = [
        f'{audit.id};{first.case};{first.number};accept;Eve;2026-01-01T00:00:00Z;"a; b";screen 2',
        f"{audit.id};{second.case};{second.number};;;;;",
        f"{audit.id};far;7;reject;Eve;;;",
    ]
    text = "\ufeffaudit;case;candidate;decision;reader;time;comment;where\r\n" + "\r\n".join(rows) + "\r\n"
    give = (
        "(async (text) => {{ const t = new DataTransfer(); t.items.add(new File([text], 'eve.csv'));"
        "const f = document.getElementById('read-file'); f.files = t.files;"
        "f.dispatchEvent(new Event('change')); }})({})"
    )
    browser.value(give.format(json.dumps(text)))
    told = "document.getElementById('told').textContent"
    assert browser.until(f"{told} !== ''")
    assert browser.value(told) == "eve.csv: 2 read; 1 of them on candidates that this page does not show, kept"
    assert browser.value(PROGRESS).endswith("1 decided: 1 accepted, 0 rejected, 0 unsure")
    (tmp_path / "decisions.csv").unlink()
    browser.download("#save-csv", tmp_path)
    again = read_decisions(tmp_path / "decisions.csv")
    assert again.verdicts == {first.key: "accept", ("far", 7): "reject"}
    assert again.remarks[first.key] == {
        "reader": "Eve",
        "time": "2026-01-01T00:00:00Z",
        "comment": "a; b",
        "where": "screen 2",
    }
    browser.value(give.format(json.dumps(text.replace(audit.id, "f" * 16))))
    assert browser.until(f"{told}.includes('not read')")
    assert browser.value(told).startswith(f"eve.csv was not read: it is of audit {'f' * 16}, and this page of ")
    browser.press("u")
    assert browser.value(PROGRESS).endswith("1 decided: 0 accepted, 0 rejected, 1 unsure")


def test_decisions_go_to_a_file_continuously(written, browser):
    """With a file of the browser's that is no file of the disk: headless, there is no dialogue to choose one."""
    audit = read_audit(written.audit)
    third = audit.candidates[2]
    browser.open(written.audit / "audit.html")
    held = f"audit,case,candidate,decision\n{audit.id},{third.case},{third.number},reject\n"
    browser.value(
        f"window.held = {json.dumps(held)};"
        "window.showSaveFilePicker = async () => ({ name: 'mine.csv',"
        "getFile: async () => new File([held], 'mine.csv'), createWritable: async () => ({"
        "write: async (text) => { window.next = text; }, close: async () => { held = next; } }) })"
    )
    browser.press("a")
    browser.value("document.getElementById('keep-in-file').click()")
    assert browser.until("document.getElementById('kept').textContent !== ''")
    browser.press("s")
    assert browser.until("held.includes('unsure')")
    assert browser.value(PROGRESS).endswith("3 decided: 1 accepted, 1 rejected, 1 unsure")
    lines = list(csv.DictReader(browser.value("held").splitlines()))
    assert [line["decision"] for line in lines] == ["accept", "unsure", "reject"]
    assert browser.value("document.getElementById('kept').textContent").startswith("saved in mine.csv, ")


def test_pictures_of_two_dimensions(written):
    image = np.arange(60 * 70).reshape(60, 70)
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    shown = Slice(geometry, np.array([30, 40]), np.array([[29, 32], [39, 42]]))
    part = shown.around(image, -1)
    assert part.shape == (45, 45)
    assert part[22, 22] == image[30, 40]
    assert part[0, 0] == image[8, 18]


def test_a_picture_of_two_dimensions():
    """One plane, without a name, as large as the array's pixels say."""
    image = np.arange(60 * 70, dtype=np.float64).reshape(60, 70)
    geometry = Geometry((2.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    own = np.array([30 * 70 + 40, 30 * 70 + 41])
    (plane,) = _planes([(image, (0.0, 4200.0), 0.0)], np.zeros(image.shape, bool), own, geometry, 5)
    assert (plane.name, plane.slices, plane.first, plane.centre) == ("", 1, 0, 0)
    assert (plane.shape, plane.aspect) == ((23, 45), "45/46")
    assert (plane.reference, plane.candidate) == (("",), ("M22 11h2v1h-2z",))
    png = PIL.Image.open(io.BytesIO(base64.b64decode(plane.strips[0])))
    assert png.getpixel((22, 11)) == int(image[30, 40] / 4200 * 255)
