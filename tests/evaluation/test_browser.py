"""The report in a real browser: nothing is asked of the network, nothing complains, nothing sticks out sideways."""

import html
import importlib.util
import json
import re
from pathlib import Path

import pytest
from tests.evaluation.sample_answers import sample_answers
from tests.evaluation.sample_quality import sample_data, sample_quality
from tests.evaluation.sample_reports import sample_report
from tests.evaluation.sample_slices import with_slices

from reglaj.evaluation.report import write_report
from reglaj.evaluation.report.answers import ANSWERS
from reglaj.evaluation.report.classification import CLASSIFICATION
from reglaj.evaluation.report.quality import write_quality_page

SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshot_report.py"
# Written into a copy of the page, whose policy then lets this one script run: it measures and reports into the DOM.
PROBE = """<script>
addEventListener("load", () => {
  const told = document.createElement("pre"), root = document.documentElement;
  const framed = ".scroll, pre, .x, .y, .ticks";
  const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(framed)
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80));
  const small = [...document.querySelectorAll("h2, .headline")].filter(e => !e.getBoundingClientRect().height);
  told.id = "probe";
  told.textContent = JSON.stringify({overflow: root.scrollWidth - innerWidth, wide, small: small.length,
    sections: document.querySelectorAll("section").length, svgs: document.querySelectorAll("svg").length,
    fetched: performance.getEntriesByType("resource").map(r => r.name), width: innerWidth,
    dark: getComputedStyle(document.body).backgroundColor});
  document.body.append(told);
});</script></head>"""


def load_script():
    spec = importlib.util.spec_from_file_location("screenshot_report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


browser = load_script()
needs_browser = pytest.mark.skipif(browser.find_browser() is None, reason="needs Chromium, which is not installed")


@pytest.fixture(scope="module", params=["classes", "answers", "quality"])
def page(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "classes":
        report, extras = sample_report(77, 1200, samples=100)
        write_report(folder, with_slices(report), extras, CLASSIFICATION)
    elif request.param == "quality":
        write_quality_page(folder, sample_data(77), sample_quality(77), name="support intents")
    else:
        write_report(folder, *sample_answers(num_rows=12, samples=100), ANSWERS)
    return folder / "report.html"


@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
def test_fits_the_window_and_fetches_nothing(page, width):
    policy = "default-src &#x27;none&#x27;;"
    text = page.read_text(encoding="utf-8")
    assert text.count(policy) == 1
    probed = page.with_name(f"probed-{width}.html")
    text = text.replace(policy, f"{policy} script-src &#x27;unsafe-inline&#x27;;").replace("</head>", PROBE)
    probed.write_text(text, encoding="utf-8")
    done = browser.browse(probed, "--dump-dom", f"--window-size={width},900")
    measured = re.search('<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1]
    found = json.loads(html.unescape(measured))
    assert found["sections"] >= 9 and found["svgs"] >= 4
    assert found["overflow"] <= 0 and found["wide"] == [] and found["small"] == 0
    assert found["fetched"] == []


@needs_browser
def test_the_page_itself_raises_no_complaint(page):
    done = browser.browse(page, "--dump-dom", "--enable-logging=stderr", "--log-level=0")
    assert done.stdout.count("<section") >= 9
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []


@needs_browser
def test_a_picture_is_taken_in_both_themes(page, tmp_path):
    for dark in (False, True):
        picture = tmp_path / f"{dark}.png"
        browser.screenshot(page, picture, width=800, height=600, dark=dark)
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert (tmp_path / "False.png").read_bytes() != (tmp_path / "True.png").read_bytes()
