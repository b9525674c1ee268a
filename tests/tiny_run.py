"""The smallest run of all stages: a config for the tiny model on eight devices."""

from pathlib import Path

from conftest import load_config
from program_spy import Calls, spying

from cai_jax.config import Config, parse_config
from cai_jax.stages.checks import check_inputs
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import run_stages
from cai_jax.stages.stage import Run, open_run

TESTS = Path(__file__).resolve().parent
BENCHMARKS = {
    "hhh": "few_choices.jsonl",
    "perplexity": "few_texts.jsonl",
    "red_team": "few_asked.jsonl",
    "twins": "few_twins.jsonl",
}
TINY_RUN = {  # changes to configs/rlaif.py:smoke
    "model.compute_dtype": "float32",
    "mesh.fsdp": 4,
    "mesh.tensor": 2,
    "sl_train.batch_size": 4,
    "sl_train.sequence_length": 192,
    "pm_train.sequence_length": 256,
    "pm_train.trained_layers": 0,
    "sl_train.trained_layers": 1,
    "rl.trained_layers": 1,
    "rl.minibatches": 1,
    "evaluate.bootstrap_samples": 100,
    "evaluate.kept_policies": True,
    "evaluate.benchmarks": ",".join(f"{task}={TESTS}/{file}" for task, file in BENCHMARKS.items()),
    "evaluate.benchmark_methods": "multiple_choice,contrast,chain_of_thought,rule,model",
    "seed": 3,
    "warm_up.source": "",
    # Of a random model's replies, few parse.
    "sl_data.red_team_prompts": 16,
    "sl_data.helpful_prompts": 12,
    "feedback.prompts": 16,
    "second_model.prompts": 12,
    "feedback.few_shots": 1,  # a tiny tokenizer makes much of three
    # An attack, of which a random model writes little that is well-formed.
    "data.red_team_seeds": f"{TESTS}/few_seeds.jsonl",
    "red_team.rounds": 2,
    "red_team.strategies": "direct,obfuscated,escalation",
    "red_team.min_novelty": 0.0,
    "red_team.min_success": 0.0,
    "red_team.attack_tokens": 40,  # as a response: one program less
    "red_team.few_shots": 1,  # a tiny tokenizer makes much of them
    "red_team.similarity": 0.9,
    "red_team.temperature": 1.0,
    "evaluate.attacks": 4,
    # Rows of one width each, so that what runs does not depend on what is sampled.
    "generation.critique_tokens": 24,
    "generation.context_tokens": 384,
    "generation.prompt_bucket_tokens": 384,
    "generation.score_pack_tokens": 384,
}


def tiny_config(workdir: Path, model_folder: Path, **changes) -> Config:
    own = {"workdir": str(workdir), "model.source": str(model_folder)}
    return parse_config(load_config("rlaif", "smoke", **{**own, **TINY_RUN, **changes}))


def run_all(config: Config, devices=None) -> tuple[Run, Calls]:
    """Runs every stage, and notes what each calls."""
    run = open_run(config, devices)
    check_inputs(run, stages_of(config))
    run.workdir.claim(config)
    with spying(stages_of(config)) as (calls, stages):
        run_stages(run, stages)
    return run, calls
