"""Talking to a model: pieces of text, the terminal, the page's server, and what votes become."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection

import jax.numpy as jnp
import pytest
from commanded import command
from conftest import ROOT
from minimal_constitution import MINIMAL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cai_jax.chat import arena as arena_module
from cai_jax.chat import terminal as terminal_module
from cai_jax.chat.arena import Arena, Critic
from cai_jax.chat.server import BODY_BYTES, HEADERS, PageServer
from cai_jax.chat.speaker import Reply, Speaker
from cai_jax.constitution.schema import load_constitution
from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import read_pairs
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, open_chat
from cai_jax.prompts.few_shots import FewShots
from cai_jax.prompts.messages import assistant, system, user

HOSTILE = "<img src=x onerror=alert(1)> </script> \x1b[2J"
SAMPLING = Sampling(temperature=0.7)


@pytest.fixture(scope="module")
def speaker(mesh, model_folder):
    source = ModelSource(model_folder)
    model = load_policy(source, policy_blueprint(source, jnp.dtype("float32")), mesh)
    chat = open_chat(source)
    generator = Generator(model, mesh, chat.stop_ids, 1, max_tokens=source.config.max_length)
    return Speaker("tiny", chat, generator, SAMPLING, 12, seed=3)


@pytest.fixture(scope="module")
def constitution(tmp_path_factory):
    file = tmp_path_factory.mktemp("constitution") / "tiny.yaml"
    file.write_text(MINIMAL)
    return load_constitution(file)


# What is said


def test_a_reply_is_what_the_engine_gives(speaker):
    messages = (user("help the people"),)
    for number in range(6):
        reply = speaker.reply(messages, "turn", number)
        pieces = list(reply)
        (whole,) = speaker.generator.generate(
            [speaker.chat.prompt_ids(messages)],
            [named_key(3, "chat", "turn", number)],
            12,
            SAMPLING,
        )
        assert (reply.ids, reply.finished) == (whole.ids, whole.finished)
        assert reply.text == speaker.chat.text(whole.ids)
        assert len(pieces) == len(whole.ids) + 1


def test_a_character_is_shown_when_all_its_bytes_are_there():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    chat = ChatFormat(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    said = "né 🦉 so"
    pieces = list(Reply(chat, iter(chat.plain_ids(said, starts=False))))
    assert "".join(pieces) == said
    assert not any("\ufffd" in piece for piece in pieces)
    assert [piece for piece in pieces if piece] == ["n", "é", " ", "🦉", " s", "o"]


def test_a_dialogue_without_room_is_one_sentence(speaker):
    with pytest.raises(ValueError, match=r"tiny reads 2048; begin a new dialogue, or lower --max"):
        speaker.reply((user("help " * 2048),), 0)


# The terminal


@contextmanager
def terminal(folder, *flags):
    """A chat in a terminal of its own: functions that type, and read until some words came."""
    ours, theirs = pty.openpty()
    command = [
        *("setsid", "--ctty", sys.executable, "-m", "cai_jax.chat"),
        *(f"--model={folder}", "--temperature=0", *flags),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = ""

    def read_until(words):
        nonlocal shown
        deadline = time.monotonic() + 120
        while words not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 4096).decode()
        before, _, shown = shown.partition(words)
        return before

    try:
        yield process, lambda text: os.write(ours, text.encode()), read_until
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_stops_the_answer_and_ctrl_d_the_program(model_folder):
    with terminal(model_folder, "--max_new_tokens=1900") as (process, type_, read_until):
        read_until("you> ")
        type_("help the people\n")
        read_until("step")  # it is in the midst of a long answer
        type_("\x03")
        read_until("[stopped]")
        read_until("you> ")
        time.sleep(1)  # it is shown a moment before a key is waited for
        type_("\x03")  # with nothing to stop
        assert "Ctrl-D ends" in read_until("you> ")
        type_("/new\n")
        read_until("you> ")
        type_("the " * 400 + "\n")
        assert "begin a new dialogue" in read_until("you> ")
        type_("\x04")
        assert process.wait(timeout=60) == 0


def test_what_terminals_obey_is_not_written_to_one(capsys, speaker, monkeypatch):
    class Hostile(Reply):
        def __iter__(self):
            yield from ("so\n", "\x1b]0;a\x07", "\x9b2J", "\tgood")

    monkeypatch.setattr(Speaker, "reply", lambda self, *_: Hostile(self.chat, iter(())))
    lines = iter(["hello"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or _end())
    terminal_module.talk([speaker], ())
    said = capsys.readouterr().out.split("\n", 1)[1]
    assert said == "so\n\ufffd]0;a\ufffd\ufffd2J\tgood\n\n"


def _end():
    raise EOFError


# The page's server


@pytest.fixture
def arena(tmp_path, speaker, constitution):
    critic = Critic(speaker, constitution, FewShots((), 0, 0))
    other = replace(speaker, name="other", seed=4)
    return Arena((speaker, other), (), tmp_path / "votes.jsonl", critic)


@pytest.fixture
def served(arena):
    with PageServer(arena, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, action, body, method="POST", **headers):
    """Status, headers and events of a request."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "Content-Length": len(content)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, action, skip_host="Host" in given)
    for name, value in given.items():
        if value is not None:
            connection.putheader(name, str(value))
    connection.endheaders(content)
    response = connection.getresponse()
    lines = response.read().decode().splitlines()
    connection.close()
    events = [json.loads(line) for line in lines] if method == "POST" else lines
    return response.status, dict(response.getheaders()), events


def dialogue(*texts):
    said = [user, assistant]
    turns = [said[i % 2](text) for i, text in enumerate(texts)]
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def test_two_answers_are_the_models_own_and_come_in_pieces(served, arena):
    status, _, events = ask(served, "/duel", {"messages": dialogue("help the people")})
    assert status == 200
    name = events[0]["duel"]
    duel = arena.duels[name]
    number = {"tiny": 0, "other": 1}
    for side, by, text in zip("AB", duel.speakers, duel.texts, strict=True):
        i = number[by]
        reply = arena.speakers[i].reply((user("help the people"),), name, i)
        pieces = "".join(e["text"] for e in events if e.get("of") == side and "text" in e)
        assert pieces == "".join(reply)
        assert text == reply.text
        assert {"of": side, "whole": text, "finished": reply.finished} in events
    assert not any("speakers" in event for event in events)  # blind until the vote


def test_the_order_is_drawn_and_duels_that_nobody_votes_on_are_forgotten(arena, monkeypatch):
    monkeypatch.setattr(arena_module, "WAITING", 8)
    arena.speakers = tuple(replace(speaker, max_new_tokens=1) for speaker in arena.speakers)
    request = JsonRow(ROOT, 1, {"messages": dialogue("good")})
    for _ in range(11):
        list(arena.duel(request))
    assert len(arena.duels) == 8
    assert {duel.speakers for duel in arena.duels.values()} == {
        ("tiny", "other"),
        ("other", "tiny"),
    }


def test_a_vote_is_a_pair_that_runs_train_on_and_evaluate_reads(served, arena, model_folder):
    arena.opening = (system("be kind"),)
    for better in ("A", "B", "equal", "A"):
        said = dialogue("good", "so it is", HOSTILE)
        _, _, events = ask(served, "/duel", {"messages": said})
        duel = arena.duels[events[0]["duel"]]
        vote = {"duel": events[0]["duel"], "better": better}
        status, _, (told,) = ask(served, "/vote", vote)
        assert status == 200
        assert told == {
            "speakers": dict(zip("AB", duel.speakers, strict=True)),
            "kept": better != "equal",
        }
        status, _, (told,) = ask(served, "/vote", vote)
        assert (status, list(told)) == (400, ["error"])
    pairs = read_pairs(arena.votes)  # as pm_train reads data.helpfulness_pairs
    assert len(pairs) == 3
    last = pairs[-1]
    assert last.messages == (system("be kind"), *map_turns(said))
    assert (last.chosen, last.rejected) == duel.texts
    rows = [json.loads(line) for line in arena.votes.read_text().splitlines()]
    assert {rows[-1]["chosen_model"], rows[-1]["rejected_model"]} == {"tiny", "other"}


def map_turns(said):
    make = {"user": user, "assistant": assistant}
    return tuple(make[turn["role"]](turn["content"].strip()) for turn in said)


def test_a_vote_on_equal_texts_is_refused_and_may_be_cast_again(served, arena):
    arena.speakers = (arena.speakers[0],) * 2
    arena.speakers = tuple(replace(s, sampling=Sampling(temperature=0)) for s in arena.speakers)
    _, _, events = ask(served, "/duel", {"messages": dialogue("good")})
    vote = {"duel": events[0]["duel"], "better": "A"}
    status, _, (told,) = ask(served, "/vote", vote)
    assert (status, told["error"]) == (
        400,
        "this vote cannot be kept as a pair: its sides are the same",
    )
    assert not arena.votes.exists()
    assert ask(served, "/vote", vote | {"better": "equal"})[0] == 200


def test_half_a_line_of_a_vote_stays_alone(served, arena):
    arena.votes.write_text('{"id": "cut o')
    _, _, events = ask(served, "/duel", {"messages": dialogue("good")})
    assert ask(served, "/vote", {"duel": events[0]["duel"], "better": "B"})[0] == 200
    lines = arena.votes.read_text().splitlines()
    assert lines[0] == '{"id": "cut o'
    assert json.loads(lines[1])["id"] == f"vote-{events[0]['duel']}"


def test_critique_and_revision_come_under_the_principle_asked_for(served):
    request = {"messages": dialogue("help"), "response": "bad people", "principle": "kind"}
    status, _, events = ask(served, "/revise", request)
    assert status == 200
    assert events[0] == {"principle": "kind", "critic": "tiny"}
    of = [event["of"] for event in events[1:]]
    assert of == sorted(of)  # the critique, and then the revision
    for kind in set(of):
        (whole,) = [e for e in events if e.get("of") == kind and "whole" in e]
        assert "".join(e["text"] for e in events if e.get("of") == kind and "text" in e).startswith(
            whole["whole"]
        )
    drawn = ask(served, "/revise", request | {"principle": ""})[2]
    assert drawn[0]["principle"] == "kind"
    status, _, (told,) = ask(served, "/revise", request | {"principle": "none"})
    assert (status, "'none'" in told["error"]) == (400, True)


TOO_DEEP = "deep" if sys.version_info < (3, 13) else "not JSON"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{broken", 400, "not JSON"),
        (b"[1]", 400, "JSON object"),
        (b"\xff", 400, "utf-8"),
        pytest.param(b"[" * 5000, 400, TOO_DEEP, id="deep"),
        (b'{"messages": "\\ud800"}', 400, "surrogate"),
        ({}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": dialogue("good", "so")}, 400, "user's"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "role"),
        ({"messages": dialogue("help " * 3000)}, 400, "begin a new dialogue"),
        (b" " * (BODY_BYTES + 1), 413, "bytes"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(served, body, status, words):
    found, _, (told,) = ask(served, "/duel", body)
    assert found == status
    assert words in told["error"]
    assert "\n" not in told["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Host": None}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "9" * 30}, 413),
    ],
)
def test_other_sites_and_odd_requests_are_refused(served, arena, headers, status):
    found, _, (told,) = ask(served, "/duel", {"messages": dialogue("good")}, **headers)
    assert found == status
    assert told["error"]
    assert not arena.duels


def test_only_the_page_is_served_and_to_its_own_hosts(served):
    for path in ("/", "/page.js", "/page.css"):
        status, headers, _ = ask(served, path, b"", "GET")
        assert status == 200
        assert headers.items() >= HEADERS.items()
    for path in ("/../server.py", "/page.py", "/%2e%2e/server.py"):
        assert ask(served, path, b"", "GET")[0] == 404
    assert ask(served, "/", b"", "GET", Host="evil.example")[0] == 403
    localhost = f"localhost:{served.server_port}"
    assert ask(served, "/", b"", "GET", Host=localhost)[0] == 200
    own = {"Host": localhost, "Origin": f"http://{localhost}"}
    assert ask(served, "/about", {}, **own)[0] == 200
    assert served.server_address[0] == "127.0.0.1"


def test_whoever_goes_away_stops_the_answer(served, arena):
    arena.speakers = tuple(
        replace(s, max_new_tokens=1900, sampling=Sampling(temperature=0)) for s in arena.speakers
    )
    connection = HTTPConnection("127.0.0.1", served.server_port, timeout=120)
    body = json.dumps({"messages": dialogue("help the people")})
    connection.request("POST", "/duel", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert "duel" in json.loads(response.readline())
    response.close()
    connection.close()
    deadline = time.monotonic() + 30
    while arena.busy.locked():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not arena.duels


# The command


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--votes=a.jsonl"], ["--votes", "--serve"]),
        (["--serve", "--votes=datasets/twins.jsonl"], ["twins.jsonl, line 1"]),
        (["--serve", "--constitution=none.yaml"], ["none.yaml", "no such file"]),
        (["--max_new_tokens=2048"], ["2048", "--max_new_tokens"]),
    ],
)
def test_what_cannot_be_done_is_said_at_the_start(model_folder, flags, words):
    done = command("chat", f"--model={model_folder}", *flags)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert all(word in last for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_the_server(model_folder, tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cai_jax.chat", f"--model={model_folder}", "--serve"),
            *("--port=0", f"--votes={tmp_path / 'votes.jsonl'}"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
