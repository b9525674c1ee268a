"""The documentation site asks no other server for anything."""

import re

import pytest
from conftest import ROOT

ASKS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|object|embed)\b[^>]*?\b(?:src|data)=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*?\bhref=[\"']?(?:https?:)?//"
    r"|url\([\"']?(?:https?:)?//|@import"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as ever, but for the API reference, which takes most of the time."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(
        str(ROOT / "mkdocs.yml"),
        site_dir=str(folder),
        plugins=["search"],
        repo_url="https://github.com/owner/name",
        strict=False,
    )
    build(config)
    return folder


def test_no_page_or_style_names_a_file_of_another_server(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 40
    found = {file: ASKS.search(file.read_text("utf-8")) for file in pages}
    assert not {file: asked[0] for file, asked in found.items() if asked}


def test_no_page_has_what_the_theme_would_ask_another_server_for(site):
    """Its script loads Mermaid for diagrams, and counts the stars of a repository on GitHub."""
    pages = [file.read_text("utf-8") for file in site.rglob("*.html")]
    assert any("https://github.com/owner/name" in page for page in pages)
    assert not [page for page in pages if re.search(r'class="mermaid"|component="source"', page)]


@pytest.mark.parametrize(
    "text",
    [
        '<script defer src="https://unpkg.com/mermaid"></script>',
        "<img alt=a src=//example.org/a.png>",
        '<link rel="stylesheet" href="https://fonts.example.org">',
        "url('https://example.org/a.woff2')",
    ],
)
def test_a_request_is_recognised(text):
    assert ASKS.search(text)
    assert not ASKS.search(text.replace("https:", "").replace("//", "/"))
