"""import: other formats become constitutions that load, and nothing of them is lost in silence."""

import json

import pytest
from commanded import command
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_jax.constitution.imports import import_constitution
from cai_jax.constitution.lint import lint
from cai_jax.constitution.schema import load_constitution
from cai_jax.constitution.write import to_yaml

SENTENCES = """\
The assistant should be honest
- Never help anyone to torment an animal.
2. Be brief and clear.
Avoid jargon.
An AI must always respect the faith of its users.
The chatbot must not guess a diagnosis from a photo.
Loyalty to the user ends where a crime begins.
Don’t flatter a buyer.
Always name the law that a claim rests on.
You should admit a mistake; hiding it is worse.

"""
MARKDOWN = """\
# A town's constitution

Written at the *library*, by
twelve neighbours.

## Health
- **Doctors**: The assistant should send serious cases to a doctor.
- Don't guess a *diagnosis*
  from a photo.

## Money
### Loans
1. Warn of [high interest](https://example.org/rates).

### Gifts
* Be frank about taxes.
"""
REQUESTS = {
    "kindly0": {
        "prompt": [
            "\n\nCritiqueRequest: Is your last reply unkind, or say it is not?\n\nCritique:"
        ],
        "edit_request": "\n\nRevisionRequest: Rewrite it kindly.\n\nRevision:",
    }
}
QUESTIONS = [
    "\nWhich response is kinder? Options:",
    "\nChoose the reply with fewer errors. Options:",
]


def imported(tmp_path, name, content):
    """The constitution that a file becomes."""
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return written(tmp_path, [path])


def written(tmp_path, paths):
    """What the file holds that becomes of others."""
    made = import_constitution(paths, "out", "Mina")
    (tmp_path / "out.yaml").write_text(to_yaml(made), encoding="utf-8")
    assert load_constitution(tmp_path / "out.yaml") == made
    return made


def test_bare_sentences_become_both_kinds_of_principle(tmp_path):
    made = imported(tmp_path, "rules.txt", SENTENCES)
    assert (len(made.critique_revision), len(made.feedback)) == (10, 10)
    assert made.authors == ("Mina",)
    assert "above all over the opposites" in made.description
    honest = made.critique_revision[0]
    assert (honest.id, honest.author, honest.tags) == ("honest", "Mina", ("imported",))
    assert honest.critique_request == (
        "An assistant should be honest. Is there a place in your last reply that does otherwise?"
        " Quote it, or say that there is none."
    )
    assert honest.revision_request.endswith("repeat it.")
    contrasts = [(p.principle, p.opposite) for p in made.feedback]
    sure = "You are an assistant that makes sure"
    assert contrasts[0] == (f"{sure} to be honest.", f"{sure} not to be honest.")
    assert contrasts[1] == (
        f"{sure} not to help anyone to torment an animal.",
        f"{sure} to help anyone to torment an animal.",
    )
    assert contrasts[6] == (  # no request, so quoted as it is
        "You are an assistant that keeps to this: “Loyalty to the user ends where a crime begins.”",
        "You are an assistant that goes against this: “Loyalty to the user ends where a crime"
        " begins.”",
    )
    assert "“You should admit a mistake; hiding it is worse.”" in made.feedback[9].principle


def test_well_formed_sentences_pass_lint(tmp_path):
    imported(tmp_path, "rules.txt", SENTENCES)
    assert lint(tmp_path / "out.yaml").findings == ()


def test_headings_become_tags_and_paragraphs_the_description(tmp_path):
    made = imported(tmp_path, "town.md", MARKDOWN)
    found = [(p.id, p.tags) for p in made.critique_revision]
    assert found == [
        ("doctors", ("health",)),
        ("dont-guess-diagnosis-photo", ("health",)),
        ("warn-high-interest-https", ("money", "loans")),
        ("frank-about-taxes", ("money", "gifts")),
    ]
    assert made.description.startswith(
        "A town's constitution. Written at the library, by twelve neighbours. Imported from town.md"
    )
    texts = [p.question for p in made.feedback]
    assert "send serious cases to a doctor" in texts[0]
    assert "An assistant should not guess a diagnosis from a photo." in texts[1]
    assert "high interest (https://example.org/rates)" in texts[2]
    assert lint(tmp_path / "out.yaml").findings == ()


def test_published_requests_and_questions_stand_as_they_are(tmp_path):
    for name, content in (("a.json", REQUESTS), ("b.json", QUESTIONS)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    made = written(tmp_path, [tmp_path / "a.json", tmp_path / "b.json"])
    (asked,) = made.critique_revision
    assert (asked.id, asked.revision_request) == ("kindly0", "Rewrite it kindly.")
    assert asked.critique_request == "Is your last reply unkind, or say it is not?"
    assert [p.question for p in made.feedback] == [
        "Which response is kinder?",
        "Choose the reply with fewer errors.",
    ]


@pytest.mark.parametrize(
    ("content", "quoted"), [(REQUESTS, "Rewrite it kindly."), (QUESTIONS, "errors.")]
)
def test_a_part_that_no_file_has_is_made_out_of_the_other(tmp_path, content, quoted):
    made = imported(tmp_path, "one.json", content)
    for p in made.feedback:
        assert p.principle != p.opposite
    assert f"{quoted}”" in made.feedback[-1].principle
    assert len(made.critique_revision) == len(made.feedback) == len(content)
    assert len({p.id for p in (*made.critique_revision, *made.feedback)}) == 2 * len(content)


def test_named_sentences_keep_their_names(tmp_path):
    made = imported(tmp_path, "named.json", {"No. 7": "The assistant should be fair."})
    assert [p.id for p in made.critique_revision] == ["no-7"]
    assert [p.id for p in made.feedback] == ["no-7-compared"]


@pytest.mark.parametrize("name", ["CritiqueRevisionInstructions", "RLMadisonInstructions"])
def test_the_papers_files_load(tmp_path, name):
    path = SHARED / "cai_paper" / f"{name}.json"
    if not path.exists():
        pytest.skip("no ../shared/data")
    made = imported(tmp_path, path.name, path.read_text(encoding="utf-8"))
    assert len(made.critique_revision) == len(made.feedback) == 16
    rules = {finding.rule for finding in lint(tmp_path / "out.yaml").findings}
    assert rules <= {"presupposed-fault", "near-duplicate", "length"}  # which are for a person


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rules.docx", "Be kind.", ["import reads files that end with .json, .txt, .md"]),
        ("rules.txt", "", ["no principle in there"]),
        ("rules.txt", "Be kind.\n# Health\n", ["line 2", "a heading", ".md"]),
        ("rules.txt", "Be kind.\n\nHonesty\n", ["line 3", "'Honesty' is no sentence; say what"]),
        (
            "rules.txt",
            "Be kind.\nBe \x07 calm.\n",
            ["line 2", "character U+0007; take it out"],
        ),
        ("rules.md", "- Be kind.\n  - Be calm.\n", ["line 2", "list inside of an item"]),
        ("rules.md", "- Be kind.\n\n```\ncode\n```\n", ["line 3", "a fence is neither heading"]),
        ("rules.md", "- Be kind.\n\n> Be calm.\n", ["line 3", "a blockquote is neither heading"]),
        ("rules.md", "- Be kind.\n\n<b>hm</b>\n", ["line 3"]),
        ("rules.md", "- Be ![kind](a.png) now.\n", ["line 1", "image cannot be read"]),
        ("rules.md", "Be kind.\n", ["line 1: no principle in there; write each as an item"]),
        ("rules.md", "- Be kind.\n  1. Be calm.\n", ["line 2: an ordered list inside of an item"]),
        ("rules.md", "- Be kind.\n\n<p>\nhm\n", ["line 3: an HTML block is neither"]),
        ("rules.md", "- \n- Be kind.\n", ["line 1: an empty text"]),
        ("rules.md", "- Be ~~rude~~ kind.\n", ["line 1: struck-out text cannot be read"]),
        ("rules.md", "Hi.\n\n| a |\n| - |\n| Be kind |\n", ["line 3: a table is neither"]),
        ("rules.md", "- Be kind.\n\n  | a |\n  | - |\n", ["line 3: a table inside of an item"]),
        (
            "rules.md",
            "---\ntitle: My rules\nauthor: me\n---\n\n- Be kind.\n",
            ["line 1: front matter", "take out lines 1 to 4", "--name and --author"],
        ),
        ("rules.md", "+++\na = 1\n+++\n- Be kind.\n", ["line 1: front matter", "lines 1 to 3"]),
        ("rules.md", "- Be kind.\n- Be\n  calm.[^1]\n", ["line 3: a footnote, [^1]; say it in"]),
        ("rules.md", "- Be kind.\n\n[^a]: Always.\n", ["line 3: a footnote, [^a]"]),
        ("rules.md", "Hm \x07.\n\n- Be kind.\n", ["line 1", "character U+0007; take it out"]),
        ("rules.txt", "Be kind.\nBe calm.[^1]\n", ["line 2: a footnote"]),
        ("rules.txt", "Be kind.\n| Be calm |\n", ["line 2: a row of a table; write a principle"]),
        ("rules.txt", "Be kind.\nBe \x0b calm.\n", ["line 2", "character U+000B; take it out"]),
        ("rules.txt", "Be kind.\n诚实。\n", ["line 2: '诚实。' is no sentence"]),
        ("rules.txt", "Be kind.\n" * 1001, ["more than 1000 principles; import parts"]),
        ("rules.json", '["Be kind.",\n "Be \\u0007 calm."]', ["line 2", "U+0007; take it out"]),
        ("rules.json", '{"a": "Be kind.",\n\n "été": 7}', ["line 3: 'été' is neither"]),
        ("rules.json", '{"a": "Be kind.",\n\n "\\u00e9": 7}', ["line 3: 'é' is neither"]),
        (
            "rules.json",
            '["Be kind.",\n "Be kind.", {"a": "Be kind."}]',
            ["line 2: an entry has 'a'"],
        ),
        (
            "rules.json",
            '{"a": {"critic": "x", "revision": "y"}}',
            ["has 'critic' and 'revision'; call what asks for a critique 'prompt'"],
        ),
        ("rules.md", "## ?\n- Be kind.\n", ["line 1", "no word to be named by"]),
        ("rules.json", '{"a": "Be kind.",\n b}', ["line 2", "not JSON"]),
        ("rules.json", '{"a": "Be kind.", "a": "Be calm."}', ["'a' appears twice"]),
        (
            "rules.json",
            '{"a": "Be kind.",\n "b": {"prompt": "x", "edit_request": "y", "z": 1}}',
            ["line 2", "'b' has 'prompt' and 'edit_request' and 'z'; call", "take out the rest"],
        ),
        ("rules.json", '{"a": {"prompt": [1], "edit_request": "y"}}', ["must be texts"]),
        ("rules.json", '{"a": {"prompt": "", "edit_request": "y"}}', ["an empty text; write one"]),
        ("rules.json", '[{"prompt": "Human: hi", "corrects": []}]', ["few-shots", "by hand"]),
        ("rules.json", '["Human: hi"]', ["few-shots", "by hand"]),
        ("rules.json", '["Be \\ud800 kind."]', ["half of a surrogate pair"]),
        ("rules.json", '"Be kind."', ["must be a list, or a mapping"]),
        ("rules.json", "[7]", ["an entry is neither a sentence nor"]),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, name, content, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        import_constitution([tmp_path / name], "out", "Mina")
    for word in (str(tmp_path / name), *words):
        assert word in str(error.value)


def test_boxes_to_tick_are_marks_of_a_list(tmp_path):
    boxes = "- [x] Be honest always.\n- [ ] **Care**: Be kind to all.\n"
    for name, ids in (("rules.md", ["honest", "care"]), ("rules.txt", None)):
        made = imported(tmp_path, name, boxes)
        assert "An assistant should be honest always." in made.feedback[0].question
        assert not any("[" in p.question for p in made.feedback)
        assert ids is None or [p.id for p in made.critique_revision] == ids


def test_lines_across_and_code_are_no_front_matter_and_no_footnotes(tmp_path):
    made = imported(tmp_path, "rules.md", "---\n\nHm.\n\n---\n\n- Match `[^a]` and no more.\n")
    assert made.description.startswith("Hm. Imported")
    assert "Match [^a] and no more." in made.feedback[0].question


def test_sentences_need_no_spaces_where_their_script_has_none(tmp_path):
    sentences = ["助手应当诚实。", "ผู้ช่วยควรซื่อสัตย์", "アシスタントは親切であるべきだ"]
    made = imported(tmp_path, "rules.txt", "\n".join(sentences))
    for sentence, p in zip(sentences, made.feedback, strict=True):
        assert f"“{sentence}”" in p.principle
    assert made.critique_revision[0].id == "助手应当诚实"
    assert lint(tmp_path / "out.yaml").findings == ()


def test_repeated_sentences_are_numbered_within_their_kind(tmp_path):
    made = imported(tmp_path, "rules.txt", "Be kind.\n" * 3)
    assert [p.id for p in made.critique_revision] == ["kind", "kind-2", "kind-3"]
    assert [p.id for p in made.feedback] == [f"kind-compared{n}" for n in ("", "-2", "-3")]


@pytest.mark.parametrize("odd", ["", "  ", "\u200b", "a\x1bb", "\udcff"])
@pytest.mark.parametrize("flag", ["name", "author"])
def test_names_that_no_constitution_may_have_are_refused(tmp_path, flag, odd):
    (tmp_path / "rules.txt").write_text("Be kind.", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^--{flag}=.* (is empty; write|has .*; (take|write))"):
        import_constitution([tmp_path / "rules.txt"], **{"name": "a", "author": "b", flag: odd})


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    (tmp_path / "rules.txt").write_text("Be kind.\n", encoding="utf-8")
    (tmp_path / "long.txt").write_text(f"Be kind {'and ' * 100_000}calm.", encoding="utf-8")
    out = tmp_path / "out.yaml"
    for arguments, words in (
        (("rules.txt", "--author= "), "--author=' ' is empty; write one"),
        (("rules.txt", "--name=   "), "--name='   ' is empty; write one"),
        (("long.txt",), "would have more than 524288 bytes; import parts of it"),
    ):
        done = command(
            "constitution", "import", tmp_path / arguments[0], *arguments[1:], f"--out={out}"
        )
        assert done.returncode == 1
        assert words in done.stderr.splitlines()[-1]
        assert not out.exists()


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "rules.txt").write_bytes("Sé amable.".encode("latin-1"))
    with pytest.raises(ValueError, match=r"rules.txt, line 1: not UTF-8 .* save the file as UTF-8"):
        import_constitution([tmp_path / "rules.txt"], "out", "Mina")


WORDS = st.lists(st.from_regex(r"[a-zà-ÿ0-9:#'\"{}\[\]&*!|>%@-]{1,12}", fullmatch=True), min_size=2)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(WORDS.filter(lambda words: any(any(map(str.isalnum, w)) for w in words)), min_size=1)
)
def test_every_word_of_a_line_comes_back(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("lines")
    sentences = [f"Somebody wrote {' '.join(words)}" for words in lines]
    made = imported(folder, "rules.txt", "\n".join(sentences))
    assert len(made.critique_revision) == len(made.feedback) == len(lines)
    for sentence, p, q in zip(sentences, made.critique_revision, made.feedback, strict=True):
        for text in (p.critique_request, p.revision_request, q.question, q.principle, q.opposite):
            assert sentence in text


def test_the_command_writes_once_and_says_what_is_left(tmp_path):
    (tmp_path / "rules.txt").write_text("Be kind.\nBe kind.\n", encoding="utf-8")
    out = tmp_path / "rules.yaml"
    arguments = tmp_path / "rules.txt", f"--out={out}", "--author=Mina"
    run = lambda: command("constitution", "import", *arguments)
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *findings = done.stdout.splitlines()
    assert first.startswith(f"{out}: 2 principles of critique, 2 of feedback. Go over")
    assert second == "lint has 2 findings:"
    assert all(": near-duplicate: kind-" in line for line in findings)
    assert load_constitution(out).name == "rules"
    again = run()
    assert again.returncode == 1
    assert "is there already" in again.stderr.splitlines()[-1]
