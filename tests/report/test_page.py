"""The page: what evaluators declare is shown, and what models wrote is escaped."""

import json
import re
from dataclasses import asdict, replace

import pytest
from small_evidence import HARM, evidence, replies
from small_summary import AUDIT, report, summary

from cai_jax.evaluation.evaluator import Evaluator, policies
from cai_jax.evaluation.measure import Evaluation, Measure, Measurement, Section
from cai_jax.evaluation.registry import EVALUATORS
from cai_jax.evaluation.statistics import Estimate
from cai_jax.report.figures import drawings, measures_by_variation
from cai_jax.report.page import number, render_page, table_of
from cai_jax.report.summary import read_summary

EVIL = "</script><script>alert('x')</script>"


def page(found=None, history=None, **changes):
    found = found or summary()
    history = evidence().history if history is None else history
    return render_page(report(found, drawings=drawings(found, history), **changes))


def rows_of(html, title):
    """Texts of the cells of a section's table."""
    section = html[html.index(f">{title}</h2>") :]
    section = section[: section.index("</table>")]
    found = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in cells]


def test_policies_are_rows_and_measures_columns():
    rows = rows_of(page(), "Texts, by their surface")
    assert rows[0][:5] == ["on", "of", "n", "response tokens tokens", "finished ↑ %"]
    assert rows[2][:5] == ["red-team", "RL-CAI", "2", "2.00 [2.00, 2.00]", "100 [34, 100]"]
    scores = rows_of(page(), "Score on held-out prompts")
    assert scores[3][:3] == ["all", "RL-CAI minus base", "4"]
    assert re.fullmatch(r"0\.50 \[-?\d\.\d\d, \d\.\d\d\] detects \d\.\d\d", scores[3][3])


def test_a_table_says_n_unit_and_what_it_is_conditional_on():
    html = page()
    assert html.count("Given: ") == len(summary().evaluation.sections)
    assert "n: labelled pairs; those of one prompt count as one unit." in html
    assert "Given: the preference model of this run and these labels." in html
    assert "did not climb; paired by prompt:" in html  # the headline
    assert "<li>RL-CAI minus base -0.50 [" in html
    assert "a true difference of" in html


def test_a_measure_that_is_not_taken_is_an_empty_cell():
    rows = rows_of(page(), "By the oracle")
    assert rows[0][3:] == ["words words", "merit ↑"]
    by_set = {tuple(row[:2]): row[3:] for row in rows[1:]}
    assert by_set["red-team", "base"][1]
    assert by_set["helpful", "base"][1] == ""
    assert rows_of(page(), "The preference model")[0][0] == "of"  # no column of groups


def test_a_new_evaluator_is_shown(monkeypatch):
    measure = Measure("length", "characters", "lower", "of a <reply>", ("helpful",))
    evaluate = lambda evidence: [Measurement("length", "rl_cai", "helpful", 5, 7.0, 6.0, 8.0)]
    toy = Evaluator("Lengths of replies", policies, lambda plan: (measure,), evaluate)
    monkeypatch.setitem(EVALUATORS, "toy", toy)
    html = page()
    assert rows_of(html, "Lengths of replies") == [
        ["on", "of", "n", "length ↓ characters"],
        ["helpful", "RL-CAI", "5", "7.00 [6.00, 8.00]"],  # and no row without a value
    ]
    assert "length: of a &lt;reply&gt;." in html


def test_another_algorithm_shows_other_metrics():
    found = summary()
    loss = Section("rl", "RL", ("last",), (Measure("loss", "", "lower", "of the update"),))
    sections = [s for s in found.evaluation.sections if s.name != "rl"] + [loss]
    found = replace(found, evaluation=replace(found.evaluation, sections=sections))
    html = page(found, history=[{"loss": 0.7}, {"loss": 0.6}])
    assert "loss during training: of the update." in html
    assert html.count("<svg") == 9


def test_shares_are_percents():
    share = Measure("accuracy", "share", "higher", "")
    assert number(share, 0.756) == "76"
    assert number(replace(share, unit="nats"), 0.756) == "0.76"


def test_a_table_has_no_empty_rows():
    section = Section("a", "A", ("one", "other"), (Measure("m", "", "", "", ("x", "y")),))
    (row,) = table_of(section, {"a.m/other/y": Measurement("m", "other", "y", 3, 1.0)})
    assert (row.group, row.subject, row.n) == ("y", "other", 3)


def audit_warnings(html):
    """Those that tell of the audit: sections have others."""
    found = re.findall(r'<p class="warning">(.*?)</p>', html, re.S)
    return [warning for warning in found if "audit's" in warning]


@pytest.mark.parametrize("better", [True, False])
def test_an_audit_no_better_than_chance_warns(better):
    found = summary(feedback={"audit": {"audit": AUDIT | {"better_than_chance": better}}})
    assert bool(audit_warnings(page(found))) is not better


@pytest.mark.parametrize("better", [["bag_of_words"], ["bag_of_words", "length"]])
def test_a_labeler_below_a_baseline_is_warned_about_by_name(better):
    heard = AUDIT | {"better_baselines": better}
    html = page(summary(feedback={"method": "multiple_choice", "audit": {"audit": heard}}))
    (warning,) = audit_warnings(html)
    assert "multiple choice is right less often than bag of words" in warning
    assert ("length" in warning) == (len(better) == 2)


def test_updates_that_training_left_out_are_told_of_every_stage_and_group():
    skipped = lambda count: {"steps": 9, "skipped_steps": count}
    groups = {"skipped_steps/kind": 0, "skipped_steps/strict": 4}
    html = page(summary(warm_up=skipped(1), sl_train=skipped(0), pm_train=groups, rl=skipped(2)))
    told = re.findall(r'<p class="warning">(\S+) left out (\d+) updates', html)
    assert told == [("warm_up", "1"), ("pm_train/strict", "4"), ("rl", "2")]


def test_rows_that_were_left_out_of_files_are_counted():
    told = "left out at the start, as a model has no room for them or cannot read them: "
    assert f"{told}3 twins, 1 helpful_prompts." in page(
        summary(left_out={"twins": 3, "helpful_prompts": 1})
    )
    assert f"{told}none." in page()


def test_model_text_is_escaped():
    shown = {HARM: [reply.row for reply in replies("rl_cai", [EVIL] * 5, [0] * 5)][:1]}
    texts = [{"of": EVIL, "text": EVIL, "critique": EVIL, "principle": "p"}]
    evil = {
        "kind": "revision",
        "id": EVIL,
        "tags": [EVIL],
        "prompt": [[EVIL, EVIL]],
        "texts": texts,
    }
    html = page(shown=shown, transcripts=[evil], principles={"p": EVIL}, settings=[(EVIL, EVIL, 1)])
    assert html.count("<script") == 2  # the transcripts and what shows them
    assert html.count("</script") == 2
    assert html.count("&lt;script&gt;") == 4  # the reply, the principle and the setting
    assert html.count("\\u003cscript\\u003e") == 8


def test_names_that_people_give_are_text_in_figures():
    names = {"base": "<b>$x$ & y", "rl_cai": "RL-CAI"}
    svgs = [drawing.svg for drawing in drawings(summary(policies=names), evidence().history)]
    assert not any("<b>" in svg for svg in svgs)
    assert any("&lt;b&gt;$x$ &amp; y" in svg for svg in svgs)


def test_the_page_is_self_contained():
    html = page()
    assert html.count("<svg") == 10
    assert not re.findall(r"""(?:src|href)=(?!["']#)""", html)
    assert "default-src 'none'" in html


def test_labels_stand_beside_what_is_so():
    (drawing,) = (d for d in drawings(summary(), []) if d.name == "reliability")
    assert [(r["of"], r["n"], r["mean"]) for r in drawing.rows] == [
        ("audit", 2, 0.5),
        ("audit", 2, 1.0),
    ]
    assert [round(row["label"], 3) for row in drawing.rows] == [0.125, 0.94]
    without = {n: v for n, v in AUDIT.items() if n != "reliability"}
    earlier = drawings(summary(feedback={"audit": {"audit": without}}), [])
    assert "reliability" not in {d.name for d in earlier}


def test_figures_have_their_numbers_beside_them():
    for drawing in drawings(summary(), evidence().history):
        rows = json.loads(drawing.data)["rows"]
        assert rows == drawing.rows
        assert rows
        assert drawing.png.startswith(b"\x89PNG")


def test_a_run_that_goes_on_shows_what_there_is():
    nothing = Evaluation([], {})
    early = summary(evaluation=nothing, feedback=None, pm_train=None, rl=None, policies={})
    html = page(early, history=[], shown={}, left=("feedback", "rl"))
    assert "To come: feedback, rl." in html
    assert "Supervision" not in html
    assert rows_of(html, "Time")[1][0] == "rl"
    assert "To come" not in page()


def test_counts_of_rows_are_listed_stage_by_stage():
    rows = [row[:3] for row in rows_of(page(), "Data")[1:]]
    assert ["sl_data", "revisions by round", "2, 2"] in rows
    assert ["sl_data", "unparsed", "1 critique"] in rows


def test_a_summary_is_read_as_it_was_written(tmp_path):
    file, found = tmp_path / "summary.json", summary()
    file.write_text(json.dumps(asdict(found)), encoding="utf-8")
    assert read_summary(file) == found
    file.write_text('{"seed": 0}', encoding="utf-8")
    with pytest.raises(ValueError, match="supervision"):
        read_summary(file)


def test_rounds_of_a_red_team_are_told_where_there_was_one():
    rounds = [
        {"number": 1, "counts": {"generated": 9, "duplicate": 4}, "success": 0.25},
        {"number": 2, "counts": {"generated": 8}, "success": None},  # none was tried
    ]
    config = {"model": {"source": "a"}, "evaluate": {"oracle": ""}, "red_team": {"target": "base"}}
    told = {"attacks": 3, "ended": "stalled: <no> success", "rounds": rounds}
    html = page(summary(red_team=told, config=config))
    assert '9 generated, 4 duplicate</td><td class="n">25 %</td>' in html
    assert '8 generated</td><td class="n"></td>' in html
    assert "stalled: &lt;no&gt; success" in html
    assert "Red team" not in page()


def test_an_interval_that_ends_a_hair_inside_its_mean_is_drawn():
    """Wilson's of 4 right of 4 does, by rounding; an error bar of less than nothing is refused."""
    share = Estimate(mean=1.0, low=0.51, high=1.0 - 1e-15)
    html = measures_by_variation({"right": [share]}, ["all"], "Labels", "pairs", "share")
    assert "<svg" in html
