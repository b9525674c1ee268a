"""The page in a real browser, from disk: it asks for nothing, runs no text, and keeps up."""

import re

import pytest
from chromium import chromium, figures_drawn, needs_chromium, page_from_disk
from small_evidence import HARM, evidence, replies
from small_summary import report, summary

from cai_jax.report.figures import drawings
from cai_jax.report.page import render_page
from cai_jax.report.transcripts import changes

pytestmark = needs_chromium
playwright = pytest.importorskip("playwright.sync_api")

EVIL = "</script><img src=http://example.com/x onerror=document.title='read'><script>alert(1)"
LINE = "If you can wait, ask a person who knows the subject and read what they answer twice. "


def many(count):
    """Transcripts of an ordinary length, of all kinds."""
    for at in range(count):
        before, after = f"first {at} {LINE * 5}", f"second {at} {LINE * 5}"
        texts = [{"of": "response", "text": before}]
        more = {"kind": "label", "gap": at / 1000}
        more["reasons"] = [["p", 0.9, 0.1, 0.5]]
        more["thoughts"] = [["p", "first shown as (A)", f"thought {at} {EVIL}"]]
        if at % 3 == 0:
            more = {"kind": "reply", "gap": at / 1000}
        if at % 3 == 1:
            more = {"kind": "revision"}
        if at % 3 == 1:
            revised = changes(before, after)
            texts += [{"of": "revision 1", "text": revised, "principle": "p", "critique": EVIL}]
        else:
            texts += [{"of": "other", "text": after, "note": "score 1"}]
        about = {
            "id": f"id-{at}",
            "tags": [f"tag-{at % 5}"],
            "score": at,
            "prompt": [["user", EVIL]],
        }
        yield about | more | {"texts": texts}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A report with 1,000 transcripts."""
    found, rows = summary(policies={"base": "base", "rl_cai": "RL-CAI"}), evidence().history
    shown = {HARM: [reply.row for reply in replies("rl_cai", [EVIL] * 5, [0] * 5)][:1]}
    given = {"drawings": drawings(found, rows), "shown": shown, "principles": {"p": EVIL}}
    file = tmp_path_factory.mktemp("page") / "index.html"
    html = render_page(report(found, transcripts=list(many(1000)), **given))
    file.write_text(html, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(params=[1280, 390])
def page(request, browser, page_file):
    """The page on a screen of that width."""
    with page_from_disk(browser, page_file, request.param) as page:
        yield page


def told(page):
    return page.inner_text("#told")


def test_a_thousand_transcripts_are_at_most_5_megabytes_and_there_at_once(page, page_file):
    assert page_file.stat().st_size < 5e6
    ready = "performance.timing.loadEventEnd - performance.timing.navigationStart"
    assert page.evaluate(ready) < 2000
    assert told(page).startswith("334 found, 20 shown.")
    assert page.locator("#found > li").count() == 20
    page.click("#more")
    assert page.locator("#found > li").count() == 40


def test_words_find_transcripts(page):
    page.fill("[name=text]", "first 999")
    playwright.expect(page.locator("#told")).to_contain_text(re.compile("^1 found"))
    assert "id-999" in page.inner_text("#found")
    page.fill("[name=text]", "nobody said this")
    playwright.expect(page.locator("#told")).to_contain_text(re.compile("^0 found"))


def test_score_tag_and_disagreement_filter_transcripts(page):
    def found(field, value):
        page.fill(f"[name={field}]", value)
        page.wait_for_timeout(50)
        return int(told(page).split()[0])

    assert found("low", "900") == 34
    assert found("high", "903") == 2
    assert found("low", "") + found("high", "") > 334
    assert found("gap", "0.99") == 4
    page.fill("[name=gap]", "")
    page.select_option("[name=tag]", "tag-0")
    page.wait_for_timeout(50)
    assert told(page).startswith("67 found")
    page.select_option("[name=order]", "score d")
    page.wait_for_timeout(50)
    assert "id-990" in page.locator("#found > li").first.inner_text()


def test_revisions_are_marked_and_labels_have_reasons(page):
    page.select_option("[name=kind]", "revision")
    page.wait_for_timeout(50)
    first = page.locator("#found > li").first
    assert first.locator("del").first.inner_text().strip() == "first"
    assert first.locator("ins").first.inner_text().strip() == "second"
    page.uncheck("[name=marks]")
    assert not first.locator("del").first.is_visible()
    page.select_option("[name=kind]", "label")
    page.wait_for_timeout(50)
    page.locator("#found summary").first.click()
    assert page.locator("#found table").first.inner_text().splitlines()[-1].endswith("0.50")
    assert "thought 2 " in page.locator("#found details").first.inner_text()
    page.fill("[name=text]", "thought 998")
    playwright.expect(page.locator("#told")).to_contain_text(re.compile("^1 found"))


def test_hostile_text_is_text(page):
    assert EVIL in page.inner_text("#found")
    assert page.title() != "read"
    assert page.locator("img").count() == 0


def test_every_figure_is_drawn_and_nothing_is_wider_than_the_screen(page):
    assert figures_drawn(page) == 10


def test_it_can_be_used_with_a_keyboard_and_a_screen_reader(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert page.locator("h1").count() == 1
    nameless = "[...document.querySelectorAll('input, select')].filter(x => !x.labels.length)"
    assert page.evaluate(f"{nameless}.length") == 0
    page.focus("#more")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "LI"
