"""The README and the documentation agree with the code: commands, links, messages, numbers."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from documents import BESIDE, DOCS, PAGES, commands, links

from cai_jax.commands.verbs import NAMES, verbs
from cai_jax.config import Config

# Of other projects or the shell: whether they are there is not ours to say.
OTHERS = {
    "git",
    "cd",
    "gzip",
    "cp",
    "echo",
    "export",
    "hf",
    "gcloud",
    "docker",
    "pytest",
    "mkdocs",
    "pip",
}
MADE = ("constitutions/mine.yaml", "constitutions/imported.yaml")  # by commands of the pages


def modules() -> dict[str, list[tuple[str, list[str]]]]:
    """Where each command of ours stands, and its flags, by the module that it runs."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    modules_by_verb = {verb: module for module, verb in NAMES.items()}
    for command in commands():
        name, flags = "", []
        if command.words[:2] == ("python", "-m"):
            name, flags = command.words[2], [*command.words[3:]]
        elif command.words[0] == "cai-jax" and len(command.words) > 1:
            verb = command.words[1]
            name, flags = f"cai_jax.{modules_by_verb.get(verb, verb)}", [*command.words[2:]]
        if name == "cai_jax.constitution":
            verb, *flags = flags
            name = f"cai_jax.commands.workshop.{modules_by_verb.get(verb, verb)}"
        if name:
            found.setdefault(name, []).append((command.where, flags))
    return found


# Flags are a process's own: each module is imported, and each command parsed, in a fork of its own.
PARSE = """
import importlib, json, os, sys
import cai_jax.models.io.load, cai_jax.prompts.chat

def in_fork(work, *values):
    if not os.fork():
        try:
            work(*values)
        except BaseException as error:
            print(*values, error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.wait()[1] == 0

def parse(module, where, words):
    sys.argv = [module, *words]
    from cai_jax.commands.front import _parse_flags
    _parse_flags([*sys.argv])
    if any(word.startswith("--config=") for word in words):
        from cai_jax.commands.config_flag import read_config
        read_config()

def try_module(module):
    package = importlib.import_module(module)
    if hasattr(package, "__path__"):
        importlib.import_module(module + ".__main__")
    if not all([in_fork(parse, module, *command) for command in given[module]]):
        os._exit(1)

given = json.load(sys.stdin)
sys.exit(not all([in_fork(try_module, module) for module in given]))
"""


def test_flags_and_config_fields_of_every_command_are_known():
    given = {
        module: [(where, words) for where, words in rows if "--help" not in words]
        for module, rows in modules().items()
    }
    assert sum(map(len, given.values())) > 40
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(given),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_command_is_one_that_there_is():
    ours = 0
    for command in commands():
        first, *rest = command.words
        if first == "python":
            script = rest[0] != "-m"
            file = ROOT / rest[0] if script else ROOT / f"{rest[1].replace('.', '/')}.py"
            there = file.exists() or (file.with_suffix("") / "__main__.py").exists()
            assert there, f"{command.where}: {rest}"
        elif first.startswith("launch/"):
            said = subprocess.run(["bash", str(ROOT / first), "--help"], capture_output=True)
            assert re.search(rf"^\s*{rest[0]}\b", said.stdout.decode(), re.M), command
        elif first == "cai-jax":
            assert not rest or rest[0] in verbs(), command
        else:
            assert first in OTHERS, f"{command.where}: {first}"
            continue
        ours += 1
    assert ours > 40


def test_files_that_commands_name_are_there():
    for command in commands():
        for word in command.words:
            path = word.partition("=")[2] if word.startswith("--") else word
            for name in re.findall(r"(?:configs|constitutions|datasets|benchmarks)/[\w./-]+", path):
                if name not in MADE and "*" not in path:
                    assert (ROOT / name.rstrip(".")).exists(), f"{command.where}: {name}"


def test_scripts_that_sentences_name_are_there():
    for page in (*PAGES, *BESIDE):
        for script in re.findall(r"`python ([\w/]+\.py)", page.read_text("utf-8")):
            assert (ROOT / script).exists(), f"{page}: {script}"


def test_extras_that_commands_install_are_there():
    extras = _extras()
    for command in commands():
        if command.words[:3] == ("pip", "install", "-e"):
            wanted = re.search(r"\[(.*)\]", command.words[3])
            assert not wanted or set(wanted[1].split(",")) <= extras, command


def _extras() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    named = (k for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "extras_require")
    return {key.value for key in next(named).value.keys}


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    """In the repository; that those of the site do, MkDocs checks when it builds it."""
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), f"{page}: {path}"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{page}: {path}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Of headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings)
    return {text.replace(" ", "-") for text in plain}


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    said = "\n".join(_texts_of_code())
    rows = re.findall(r"^\| `(.*?)` \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
    assert len(rows) > 25
    for row in rows:
        for piece in (piece.strip(" .:;") for piece in row.split("...")):
            assert len(piece) < 8 or piece in said, f"{row}: {piece}"


def _texts_of_code() -> list[str]:
    """Texts of the package, with dots in the place of values."""
    found = []
    for file in (ROOT / "cai_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_shares_of_memory_are_those_of_the_compile_reports():
    rows = re.findall(
        r"\| (\d+) % \| \[report\]\((compile/.*?\.md)\)", (DOCS / "machine.md").read_text("utf-8")
    )
    assert len(rows) == 9
    for share, report in rows:
        assert int(share) == _most_memory(DOCS / report), report
    known = {_most_memory(file) for file in (DOCS / "compile").glob("*-v*.md")}
    readme = (ROOT / "README.md").read_text("utf-8")
    told = re.findall(r"^\| \w.* \| v\d\w \S+ \| \d+ \| (\d+) % \|$", readme, re.M)
    assert len(told) == 5
    assert set(map(int, told)) <= known


def _most_memory(report: Path) -> int:
    """Of a chip, over all steps, in percent."""
    head, *_ = (row for row in report.read_text("utf-8").splitlines() if row.startswith("| step"))
    column = [cell.strip() for cell in head.split("|")].index("of memory")
    rows = report.read_text("utf-8").splitlines()
    shares = [row.split("|")[column] for row in rows if row.startswith("| ") and "GiB" in row]
    return max(int(share.strip().rstrip("%")) for share in shares)


def test_the_microworld_of_the_readme_is_that_of_the_sweep():
    """The table's shares are the sweep's, the picture's the same runs'."""
    sweep = (ROOT / "benchmarks/results/sweeps/claims/table.md").read_text("utf-8")
    means, _ = sweep.split("Minus multiple choice")  # whose column is the first
    told = {
        name: [round(100 * float(n)) for n in numbers]
        for name, *numbers in re.findall(
            r"^\| (.*?) \| share \| (\S+) \[(\S+), (\S+)\] \|", means, re.M
        )
    }
    readme = (ROOT / "README.md").read_text("utf-8")
    for measure in ("harmless", "helpful"):
        row = re.search(rf"^\| {measure} \|(.*)\|$", readme, re.M)[1].split("|")
        for policy, cell in zip(("base", "SL-CAI", "RL-CAI"), row, strict=True):
            numbers = [int(n) for n in re.findall(r"\d+", cell)]
            assert numbers == told[f"{policy} {measure}"], (policy, measure)
    figure = runpy.run_path(str(ROOT / "benchmarks" / "microworld_figure.py"))
    seeds = figure["read_seeds"]()
    assert len(seeds) == 5
    for name in (*figure["ROUNDS"], "RL-CAI helpful"):
        assert abs(figure["mean"](seeds, name) - told[name][0]) < 1


def test_differences_of_the_microworld_are_those_that_its_script_prints():
    figure = runpy.run_path(str(ROOT / "benchmarks" / "microworld_figure.py"))
    page = (DOCS / "microworld.md").read_text("utf-8")
    found = figure["differences"](figure["read_seeds"]())
    assert len(found) == 3
    assert not [apart for apart in found.values() if apart not in page]


def test_the_picture_is_drawn_by_its_script(tmp_path):
    figure = runpy.run_path(str(ROOT / "benchmarks" / "microworld_figure.py"))
    figure["draw"](figure["read_seeds"](), tmp_path / "microworld.svg")
    drawn = (tmp_path / "microworld.svg").read_text("utf-8")
    kept = (DOCS / "microworld.svg").read_text("utf-8")
    assert _points(drawn) == _points(kept)


def _points(svg: str) -> int:
    return svg.count("<use ")


def test_the_config_page_has_every_field_with_its_meaning():
    pytest.importorskip("mkdocs")
    hooks = runpy.run_path(str(DOCS / "hooks.py"))
    page = hooks["config_reference"]()
    rows = re.findall(r"^\| `(\w+)`(?: ⚙)? \| .+ \| .+ \| (.+) \|$", page, re.M)
    assert len(rows) == _fields(Config)
    assert all(meaning.strip() for _, meaning in rows)
    assert "| `kl_coef` | `0.03` | float, ≥ 0 | reward per nat of log-ratio" in page
    assert "## config.rl.direct" in page


def _fields(block: type) -> int:
    """How many fields a block has, those of the blocks in it included."""
    count = 0
    for field in block.__pydantic_fields__.values():
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        inner = [kind for kind in kinds if hasattr(kind, "__pydantic_fields__")]
        count += _fields(inner[0]) if inner else 1
    return count


def test_links_to_files_become_links_of_the_site():
    pytest.importorskip("mkdocs")
    from types import SimpleNamespace

    hooks = runpy.run_path(str(DOCS / "hooks.py"))
    page = SimpleNamespace(file=SimpleNamespace(src_uri="data.md"))
    text = "[a](../datasets/README.md#formats) [b](../cai_jax/main.py) [c](rl.md) [d](no.md) "
    text += "[e](../cai_jax/config.py)"
    with_address = SimpleNamespace(repo_url="https://example.org/r")
    assert hooks["on_page_markdown"](text, page, with_address, None) == (
        "[a](datasets.md#formats) [b](https://example.org/r/blob/main/cai_jax/main.py) "
        "[c](rl.md) [d](no.md) [e](config.md)"
    )
    without = hooks["on_page_markdown"](text, page, SimpleNamespace(repo_url=""), None)
    assert "b (`cai_jax/main.py`)" in without
