"""The method on a small synthetic world with an oracle to check it by.

    python -m cai_jax.main --config=configs/microworld.py        # longer than fast by half
    python -m cai_jax.main --config=configs/microworld.py:fast   # 6 minutes on two cores, for tests
    python -m cai_jax.main --config=configs/microworld.py:red_team   # its assistant also attacks

Its stages are those of configs/rlaif.py; only model, prompts, constitution and sizes differ, and
what differs from the defaults in cai_jax/config.py stands here. The model is pretrained, and an
oracle reads its replies at evaluation.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "whole") -> ConfigDict:
    presets = {"whole": whole, "fast": fast, "red_team": red_team}
    if preset not in presets:
        raise ValueError(
            f"configs/microworld.py: no preset {preset!r}; known: {', '.join(presets)}"
        )
    return presets[preset]()


def whole() -> ConfigDict:
    full = dict(lora=dict(rank=0, alpha=1.0), trained_layers=0)
    c = ConfigDict()
    c.workdir = "runs/microworld"
    c.model = dict(source="", compute_dtype="float32")
    c.pretrain = dict(
        corpus="cai_jax.microworld.corpus:dialogues",
        options=dict(
            dialogues=42_000.0,
            critic_recall=0.9,
            direct_recall=0.6,
            evasive_revisions=0.2,
            judge_accuracy=0.99,
            thought_accuracy=0.995,
            position_bias=0.65,
            kind_replies=0.15,
            groups=0.0,
        ),
    )
    c.constitution = dict(path="constitutions/microworld/harmless.yaml")
    files = ("red_team_prompts", "helpful_prompts", "helpfulness_pairs", "harmlessness_pairs")
    c.data = {name: f"datasets/microworld/{name}.jsonl" for name in files}
    # Of topics; the corpus shows those of training and of the second preference model.
    c.data.update(development_percent=5, audit_percent=10, evaluation_percent=20)
    c.generation = dict(
        temperature=0.7,
        batch_size=64,
        score_batch_size=64,
        score_pack_tokens=128,
        response_tokens=32,
        critique_tokens=24,
        context_tokens=512,
    )
    c.sl_data = dict(
        red_team_prompts=160, helpful_prompts=260, helpful_samples=3, rounds=4, few_shots=0
    )
    c.sl_train = dict(
        **full, epochs=7, batch_size=32, sequence_length=128, learning_rate=1e-3, warmup_steps=5
    )
    c.feedback = dict(
        method="multiple_choice",
        prompts=160,
        pairs_per_prompt=5,
        helpful_prompts=200,
        temperature=1.2,  # of a grammar this small, most pairs would be equal at 0.7
        principles_per_pair=4,
        few_shots=0,
        contrast_scale=5.0,
        reasoning_tokens=40,
        audit_pairs=200,
    )
    c.pm_train = dict(
        **full,
        helpfulness_pairs=1040,
        epochs=2,
        batch_size=32,
        sequence_length=64,
        warmup_steps=5,
    )
    c.rl = dict(
        **full,
        iterations=30,
        batch_size=128,
        minibatches=4,
        prompt_tokens=24,
        response_tokens=32,
        temperature=1.0,  # explores what is rare at 0.7
        learning_rate=1e-4,
        kl_coef=0.5,
        lam=0.95,
        value_coef=0.5,
        helpful_fraction=0.5,
        max_sampler_gap=0.01,
        watch_every=5,
    )
    c.evaluate = dict(
        red_team_prompts=65,
        helpful_prompts=110,
        labelled_pairs=80,
        twins=0,  # its model knows no other world
        oracle="cai_jax.microworld.oracle:judge",
    )
    return c


def fast() -> ConfigDict:
    """Less practice at everything: what the method does still shows, by smaller margins."""
    c = whole()
    c.workdir = "runs/microworld_fast"
    c.pretrain.options.dialogues = 24_000.0
    c.sl_data.helpful_samples = 2
    c.pm_train.helpfulness_pairs = 800
    c.rl.iterations = 20
    c.evaluate.labelled_pairs = 190  # nearly all: one seed has to show it
    return c


def red_team() -> ConfigDict:
    """An assistant that reads requests in frames and after others, and writes them as well."""
    c = fast()
    c.workdir = "runs/microworld_red_team"
    c.pretrain.options.dialogues = 30_000.0
    c.pretrain.options.update(framed=0.35, attacks=0.12)
    c.pretrain.sequence_length = 176
    c.data.red_team_seeds = "datasets/microworld/red_team_seeds.jsonl"
    c.red_team = dict(
        rounds=3,
        attacks=120,
        strategies="direct,role_play,hypothetical,escalation",
        refusal="I cannot talk about that.",
        few_shots=2,
        attack_tokens=48,
        temperature=1.0,
        similarity=0.95,  # of a grammar this small, most prompts are near others at 0.5
    )
    # One more strategy than is trained on.
    c.evaluate.update(
        attacks=200, attack_strategies="direct,role_play,hypothetical,escalation,false_premise"
    )
    c.pm_train.sequence_length = 244  # three turns, as long as they may get, and the replies
    c.sl_train.sequence_length = 160
    c.rl.prompt_tokens = 112
    return c
