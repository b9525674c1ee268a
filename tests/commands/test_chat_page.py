"""The page of chat --serve, in Chromium: it works, and what models write stays text."""

import json
import re
import threading
from dataclasses import replace

import jax.numpy as jnp
import pytest
from chromium import chromium, needs_chromium
from minimal_constitution import MINIMAL
from tiny_model import write_tiny_model

from cai_jax.chat.arena import Arena, Critic
from cai_jax.chat.server import PageServer
from cai_jax.chat.speaker import Speaker
from cai_jax.constitution.schema import load_constitution
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import open_chat
from cai_jax.prompts.few_shots import FewShots

pytestmark = needs_chromium

# Most of what the model says would be obeyed if it were no text.
HOSTILE = tuple(f"<img src=x onerror=alert({i})>" for i in range(200))
MARKUP = "<script>alert('name')</script>"


@pytest.fixture(scope="module")
def arena(mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    source = ModelSource(write_tiny_model(folder / "hostile", HOSTILE))
    model = load_policy(source, policy_blueprint(source, jnp.dtype("float32")), mesh)
    chat = open_chat(source)
    generator = Generator(model, mesh, chat.stop_ids, 1, max_tokens=source.config.max_length)
    one, other = (
        Speaker(name, chat, generator, Sampling(), 16, seed)
        for seed, name in enumerate((f"one {MARKUP}", f"other {MARKUP}"))
    )
    file = folder / "tiny.yaml"
    file.write_text(MINIMAL.replace("Make it kind.", f"Make it kind {MARKUP}."))
    critic = Critic(one, load_constitution(file), FewShots((), 0, 0))
    return Arena((one, other), (), folder / "votes.jsonl", critic)


@pytest.fixture(scope="module")
def address(arena):
    with PageServer(arena, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_two_answers_a_vote_and_a_revision(arena, address, browser, tmp_path, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(120_000)
    problems, asked = [], []
    page.on("console", lambda said: said.type == "error" and problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_label("What you say").fill(f"help {HOSTILE[0]}")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="A is better").wait_for()
    answers = [page.get_by_role("article", name=f"Answer {side}") for side in "AB"]
    assert not any("one" in a.get_by_role("heading").inner_text() for a in answers)
    page.keyboard.press("Enter")  # on the first choice, which has the focus
    page.get_by_text("A is better.", exact=True).wait_for()
    assert page.get_by_role("status").inner_text() == "Your vote is kept."
    row = json.loads(arena.votes.read_text().splitlines()[-1])
    for answer, side in zip(answers, ("chosen", "rejected"), strict=True):
        assert answer.get_by_role("heading").inner_text().endswith(row[f"{side}_model"])
        assert answer.locator(".text").inner_text().removesuffix(" …") == row[side]
    assert "onerror" in row["chosen"]
    answers[0].get_by_role("button").click()
    page.get_by_text(re.compile("Critique and revision are there|There is no revision")).wait_for()
    assert MARKUP in answers[0].inner_text()
    page.get_by_label("What you say").fill("why")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="About equal").click()
    page.get_by_text("Nothing was kept of it.").wait_for()
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    assert page.locator("#dialogue :is(img, script, iframe)").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="New dialogue").click()
    assert page.locator("#dialogue li").count() == 0
    assert not problems
    assert all(url.startswith(address) or url == "data:," for url in asked), asked
    page.close()


def test_what_the_server_refuses_is_told_and_what_was_said_stays(address, browser):
    page = browser.new_page()
    page.goto(address)
    said = page.get_by_label("What you say")
    said.fill("help " * 3000)
    page.keyboard.press("Enter")
    page.get_by_text("begin a new dialogue").wait_for()
    assert said.input_value().startswith("help help")
    assert page.get_by_role("button", name="Send").is_enabled()
    page.close()


def test_stop_ends_both_answers(arena, address, browser, monkeypatch):
    long = tuple(
        replace(s, max_new_tokens=1900, sampling=Sampling(temperature=0)) for s in arena.speakers
    )
    monkeypatch.setattr(arena, "speakers", long)
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.get_by_label("What you say").fill("help the people")
    page.keyboard.press("Enter")
    page.locator(".text", has_text=re.compile(r"\S+ \S+ \S+ \S+")).first.wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert page.get_by_label("What you say").input_value() == "help the people"
    assert arena.busy.acquire(timeout=30)
    arena.busy.release()
    page.close()
