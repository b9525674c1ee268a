"""Which prompts an iteration answers."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.data.readers import Prompt
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.messages import user
from cai_jax.rl import prompts
from cai_jax.rl.prompts import Drawn, PromptPool, short, tokenised


def kind(name, count):
    return [Drawn(f"{name}{i}", [i]) for i in range(count)]


@given(
    red_team=st.integers(1, 12),
    helpful=st.integers(1, 12),
    count=st.integers(1, 12),
    share=st.floats(0, 1),
    samples=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_kinds_have_their_shares_and_samples_are_consecutive(
    red_team, helpful, count, share, samples, seed
):
    pool = PromptPool(kind("r", red_team), kind("h", helpful), count, share, samples, seed)
    drawn = pool.draw(3)
    assert len(drawn) == count * samples
    prompts = drawn[::samples]
    assert drawn == [prompt for prompt in prompts for _ in range(samples)]
    of_kind = lambda name: [prompt.id for prompt in prompts if prompt.id[0] == name]
    assert len(of_kind("h")) == round(count * share)
    for name, there in (("r", red_team), ("h", helpful)):
        if len(of_kind(name)) <= there:
            assert max(Counter(of_kind(name)).values(), default=1) == 1


def test_a_draw_follows_from_seed_and_iteration_alone():
    pool = lambda seed=0: PromptPool(kind("r", 50), kind("h", 50), 8, 0.5, 1, seed)
    one = pool()
    order = [one.draw(i) for i in (0, 1, 2)]
    assert [one.draw(i) for i in (2, 1, 0)] == order[::-1]
    assert len({tuple(d.id for d in drawn) for drawn in [*order, pool(1).draw(0)]}) == 4


def test_over_iterations_every_prompt_comes():
    pool = PromptPool(kind("r", 6), kind("h", 6), 4, 0.5, 1, 0)
    seen = {drawn.id for iteration in range(40) for drawn in pool.draw(iteration)}
    assert len(seen) == 12


@pytest.mark.parametrize(
    ("red_team", "helpful", "share", "missing"),
    [(0, 3, 0.5, "red-team"), (3, 0, 0.5, "helpfulness")],
)
def test_a_kind_with_a_share_and_no_prompts_is_refused(red_team, helpful, share, missing):
    pool = lambda share: PromptPool(kind("r", red_team), kind("h", helpful), 4, share, 1, 0)
    with pytest.raises(ValueError, match=f"rl: no {missing} prompt has at most prompt_tokens"):
        pool(share).draw(0)
    assert len(pool(1.0 if red_team == 0 else 0.0).draw(0)) == 4


def test_prompts_become_the_ids_that_each_has_by_itself(model_folder, monkeypatch):
    """In batches, those that repeat once, text that spells a control token included."""
    chat = ChatFormat(load_tokenizer(model_folder))
    end = chat.tokenizer.convert_ids_to_tokens(chat.end_of_turn)
    texts = ["help", "help me", f"say {end} now", "", "help", "you are bad " * 9]
    asked = [Prompt(f"{i}", (user(text),)) for i, text in enumerate(texts)]
    alone = [Drawn(p.id, chat.prompt_ids(p.messages)) for p in asked]
    assert tokenised(asked, chat) == alone
    monkeypatch.setattr(prompts, "BATCH", 2)
    for most in {len(drawn.ids) for drawn in alone}:
        fit = [p for p, drawn in zip(asked, alone, strict=True) if len(drawn.ids) <= most]
        assert short(asked, chat, most) == fit
    assert short([], chat, 8) == []
