"""What MkDocs does beyond its own: pages from files of the repository, and links to such files.

No page asks another server for anything.

READMEs stand beside what they are about and are pages as they are. The config reference is read off
cai_jax/config.py at every build. A link to a file of the repository works in both places: on the
site it leads to the file's page, or to the repository where its address is known.
"""

import dataclasses
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cai_jax.config import Config

ROOT = Path(__file__).resolve().parent.parent
PAGES = {  # files that are pages as they are
    "README.md": "index.md",
    "constitutions/README.md": "constitutions.md",
    "constitutions/groups/README.md": "groups.md",
    "datasets/README.md": "datasets.md",
    "launch/README.md": "launch.md",
    "adapters/smollm2-135m-instruct/README.md": "critic.md",
    "benchmarks/results/h200/README.md": "h200.md",
    "benchmarks/results/transcripts/README.md": "transcripts.md",
    "benchmarks/results/cycles/seed0.md": "cycles.md",
    "tests/README.md": "tests.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
FILES = {page: file for file, page in PAGES.items()}
CONFIG_PAGE = "config.md"  # where links to its source lead
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that no file of docs/ is."""
    for file, page in PAGES.items():
        text = FRONT_MATTER.sub("", (ROOT / file).read_text("utf-8"))
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, CONFIG_PAGE, content=config_reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links of the site."""
    here = page.file.src_uri
    source = PurePosixPath(FILES.get(here, f"docs/{here}"))
    return LINK.sub(lambda found: _link(found, source, here, config.repo_url), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Keeps the link to the repository; the theme would ask its host for the number of stars."""
    return output.replace(' data-md-component="source"', "")


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """The same of pages that are no documents, such as 404.html."""
    return output.replace(' data-md-component="source"', "")


def _link(found: re.Match[str], source: PurePosixPath, here: str, repository: str | None) -> str:
    text, link, anchor = found[1], found[2], found[3] or ""
    target = os.path.normpath(source.parent / link)
    page = PAGES.get(target) or PAGES.get(f"{target}/README.md")
    if target == "cai_jax/config.py":
        page = CONFIG_PAGE
    elif target.startswith("docs/"):
        page = target.removeprefix("docs/")
    if page:
        return f"[{text}]({os.path.relpath(page, PurePosixPath(here).parent)}{anchor})"
    if not (ROOT / target).exists():
        return found[0]  # MkDocs says that it leads nowhere
    if repository:
        return f"[{text}]({repository.rstrip('/')}/blob/main/{target}{anchor})"
    return f"`{target}`" if text.strip("`") in target else f"{text} (`{target}`)"


def config_reference() -> str:
    """All fields of the config tree: type, default and bounds, what they mean, as Markdown."""
    lines = [
        "# Config",
        "",
        "Every field is a flag: `--config.rl.kl_coef=0.1`. A config file of `configs/` says what",
        "differs from the defaults below. This page is made from `cai_jax/config.py` when the site",
        "is built.",
        "",
        "A field marked ⚙ changes how something is computed, not what: no finished work is",
        "repeated for it. All others redo the stages that read them.",
        "",
        *_tables("config", Config),
    ]
    return "\n".join(lines) + "\n"


def _tables(where: str, block: Any) -> Iterator[str]:
    """The table of a block, and those of the blocks in it."""
    fields: dict[str, FieldInfo] = block.__pydantic_fields__
    inner = {name: kind for name, field in fields.items() if (kind := _block_of(field))}
    yield from (f"## {where}", "", inspect.cleandoc(block.__doc__ or ""), "")
    yield from ("| field | default | allowed | what it is |", "| --- | --- | --- | --- |")
    for name, field in fields.items():
        if name not in inner:
            mark = " ⚙" if field.json_schema_extra else ""
            row = f"`{name}`{mark}", _default(field), _allowed(field), field.description or ""
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""
    for name, kind in inner.items():
        yield from _tables(f"{where}.{name}", kind)


def _block_of(field: FieldInfo) -> Any:
    kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if value is PydanticUndefined:
        return "none: give one"
    return f"`{value!r}`" if value == "" else f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    """Choices or type, and bounds."""
    kind = str(getattr(field.annotation, "__name__", field.annotation))
    choices = getattr(field.annotation, "__args__", ())
    if "Literal" in str(field.annotation):
        kind = ", ".join(f"`{choice}`" for choice in choices)
        kind = "names of stages" if "tuple" in str(field.annotation) else kind
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, bound)}"
        for rule in field.metadata
        for bound, sign in signs.items()
        if getattr(rule, bound, None) is not None
    ]
    return ", ".join([kind, *bounds])
