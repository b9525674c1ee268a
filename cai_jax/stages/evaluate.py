"""The policies of a run compared on prompts that none of them was trained on."""

import inspect
import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.config import naming
from cai_jax.data.readers import Attack, Prompt
from cai_jax.data.records import read_records, write_records
from cai_jax.data.rows import Comparison, Revision, Sample, TrainingPair
from cai_jax.evaluation import benchmarks, registry
from cai_jax.evaluation.attacks import ATTACKS
from cai_jax.evaluation.evaluator import Evidence, Judge, Oracle, Reply, Tools
from cai_jax.evaluation.groups import gains
from cai_jax.evaluation.measure import PROMPT_SETS, TWIN_SETS, Measurement, Plan
from cai_jax.evaluation.oracle import oracle_measures
from cai_jax.evaluation.preference import headline, headline_score
from cai_jax.evaluation.preference_model import KINDS
from cai_jax.evaluation.reply_class import ReplyJudge
from cai_jax.evaluation.tasks.red_team import judge_by
from cai_jax.evaluation.tasks.replies import generator_of
from cai_jax.evaluation.tasks.task import TaskSettings, TaskTools, check_lengths
from cai_jax.feedback.audit import Audit
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key, sampled
from cai_jax.models.blueprint import Model
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.hosts import write_text
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import first_user_text
from cai_jax.reading import read_json
from cai_jax.red_teaming.attacker import Pool
from cai_jax.red_teaming.attacks import direct_seeds
from cai_jax.red_teaming.loop import Limits, Loop
from cai_jax.red_teaming.strategies.registry import named_strategies
from cai_jax.rl.reward import Objective, OverRefusal, Usable, usable
from cai_jax.stages.data import (
    SHOWN_PROMPTS,
    Selection,
    first,
    first_or_all,
    read_benchmarks,
    repeated,
)
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SAMPLING_REMEDY,
    SCORING_REMEDY,
    load_function,
    make_generator,
    make_labeler_tools,
    make_reward,
    make_sampling,
    make_scorer,
    stage_seed,
    with_remedy,
)
from cai_jax.stages.models import POLICIES, Policy
from cai_jax.stages.red_team import attacker_source, make_attacker, make_loop, task_settings
from cai_jax.stages.rl import kept_policy, looks_of, make_algorithm, read_looks
from cai_jax.stages.stage import Inputs, Outcome, Stage

log = logging.getLogger("cai_jax")
BASE = next(iter(POLICIES))  # what the other policies are compared with


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Samples from all policies, evaluates, and writes ``samples`` and evaluation.json."""
    base = inputs.models.policy(inputs.models.policy_source(BASE))
    tools = _tools(inputs, base)
    trials = _trials(inputs.config)
    answers, under_attack, tried, tokens = _every_answer(inputs, base, tools, trials)
    replies = _scored(inputs, answers, tools.reward, tools.second)
    refusal = inputs.config.red_team.refusal
    second_over = OverRefusal(tools.second, refusal) if tools.second else None
    attacks = _scored(inputs, under_attack, OverRefusal(tools.reward, refusal), second_over)
    for group, reward in tools.reward.rewards.items():
        scored = TaskTools(_task_settings(inputs), reward.scorer)
        tried += benchmarks.measured(trials, "preference", benchmarks.judge_of(group), scored)
    evaluation = registry.evaluate_all(_evidence(inputs, tools, replies, attacks, tried))
    for section in evaluation.sections:
        if section.warning:
            log.warning("evaluate: %s", section.warning)
    for subject, told in gains(evaluation).items():
        log.info("evaluate: %s: %s", subject, told)
    by = headline_score(evaluation).description
    for subject, told in headline(evaluation).items():
        log.info("evaluate: score over all held-out prompts, %s: %s %s", by, subject, told)
    results = asdict(evaluation)
    every = [*replies.values(), *attacks.values()]
    rows = [reply.row for found in every for reply in found]
    write_records(folder / "samples", rows, Sample)
    write_text(folder / "evaluation.json", json.dumps(results, indent=2) + "\n")
    judges = [judge.tools for judge in (tools.judge, tools.other_judge) if judge]
    others = tools.second.scorers if tools.second else []
    scorers = [*tools.reward.scorers, tools.base, *(judge.scorer for judge in judges), *others]
    tokens += sum(s.tokens for s in scorers) + sum(judge.generator.tokens for judge in judges)
    return Outcome(results, tokens)


@dataclass(frozen=True)
class Answers:
    """What a policy said."""

    prompts: Sequence[tuple[str, Prompt]]  # each with its set
    ids: list[list[int]]  # of the prompts
    samples: list[Completion]


def _every_answer(
    inputs: Inputs, base: Model, tools: Tools, trials: Sequence[benchmarks.Trial]
) -> tuple[dict[str, Answers], dict[str, Answers], list[Measurement], int]:
    """All policies', those to attacks, their benchmarks, and the tokens that this took.

    One policy is loaded at a time, and the attacker until the last one has answered.
    """
    models, tokens = inputs.models, 0
    answers: dict[str, Answers] = {}
    under_attack: dict[str, Answers] = {}
    tried: list[Measurement] = []
    attacker = _held_out_attacker(inputs, base) if inputs.config.evaluate.attacks else None
    written = attacker.run().attacks if attacker else []
    present = compared_policies(inputs.config, inputs.manifest("rl")["metrics"])
    for name, policy in present.items():
        model = models.policy(models.policy_source(policy), base)
        answers[name], used = _answers(inputs, name, model, tools.temperature)
        tokens += used
        task_tools = _task_tools(inputs, model, tools)
        tried += benchmarks.measured(trials, "policy", name, task_tools)
        tokens += task_tools.scorer.tokens + generator_of(task_tools).tokens
        if attacker:
            under_attack[name], used = _answers_to_attacks(inputs, name, model, attacker, written)
            tokens += used
    return answers, under_attack, tried, tokens + (attacker.tokens if attacker else 0)


def _answers(inputs: Inputs, name: str, model: Model, temperature: float) -> tuple[Answers, int]:
    """To held-out prompts, shown ones and twins, and the tokens that this took."""
    g, chat = inputs.config.generation, inputs.models.chat
    sampling = make_sampling(g)
    times = inputs.config.evaluate.samples_per_prompt
    repeats = {group: repeated(inputs.rows(group), times) for group in PROMPT_SETS}
    prompts = [(group, prompt) for group, again in repeats.items() for prompt in again]
    prompts += [("shown", prompt) for prompt in SHOWN_PROMPTS]
    for side in TWIN_SETS:
        prompts += [(side, Prompt(t.id, getattr(t, side))) for t in inputs.rows("twins")]
    generator = _generator(inputs, model)
    ids = chat.prompts_ids([prompt.messages for _, prompt in prompts])
    # The same keys for every policy: differences are paired.
    keys = [named_key(inputs.seed, "evaluate", group, prompt.id) for group, prompt in prompts]
    samples = generator.generate(ids, keys, g.response_tokens, sampling, f"evaluate: {name}")
    tokens = generator.tokens
    if truncates(sampling):
        scorer, completions = _scorer(inputs, model), [sample.ids for sample in samples]
        whole = scorer.completion_logprobs(ids, completions, temperature, "evaluate: KL")
        samples = [replace(s, logprobs=w) for s, w in zip(samples, whole, strict=True)]
        tokens += scorer.tokens
    return Answers(prompts, ids, samples), tokens


def _scored(
    inputs: Inputs,
    answers: Mapping[str, Answers],
    reward: Objective | OverRefusal,
    second: Objective | OverRefusal | None,
) -> dict[str, list[Reply]]:
    """All policies' replies by the preference models: in one call, which reads a prompt once."""
    chat = inputs.models.chat
    ids = [row for given in answers.values() for row in given.ids]
    samples = [sample for given in answers.values() for sample in given.samples]
    parsed = [usable(chat, sample) for sample in samples]
    scores = reward.by_group(ids, parsed, "evaluate: scores")
    seconds = second.by_group(ids, parsed, "evaluate: scores") if second else 0 * scores
    found, start = {}, 0
    for name, given in answers.items():
        here = slice(start, start + len(given.ids))
        start = here.stop
        by_group, others_by_group = scores[:, here], seconds[:, here]
        # What is measured by group says which is worst off, not what is shown beside it.
        measured = np.isin([group for group, _ in given.prompts], PROMPT_SETS)
        counted = measured if measured.any() else None
        rows = [
            Sample(
                id=f"{group}/{prompt.id}/{name}",
                model=name,
                set=group,
                prompt=prompt.messages,
                response=reply.text if reply else chat.text(sample.ids),
                finished=sample.finished,
                score=float(score),
                second_score=float(other),
                group_scores=tuple(of_groups.tolist()),
                group_second_scores=tuple(others.tolist()),
                unjudged=unjudged(chat, sample, reply),
            )
            for (group, prompt), sample, reply, score, other, of_groups, others in zip(
                given.prompts,
                given.samples,
                parsed[here],
                reward.together(by_group, counted),
                reward.together(others_by_group, counted),
                by_group.T,
                others_by_group.T,
                strict=True,
            )
        ]
        parses = [reply is not None for reply in parsed[here]]
        found[name] = list(map(Reply, rows, given.ids, given.samples, parses))
    return found


def unjudged(chat: ChatFormat, sample: Completion, reply: Usable | None) -> str:
    """What was sampled after the part of a reply that is judged."""
    whole = chat.text(sample.ids)
    return whole[len(reply.text) :] if reply and whole.startswith(reply.text) else ""


def _held_out_attacker(inputs: Inputs, base: Model) -> Loop:
    """An attacker that shares neither seeds nor samples with red_team's, and only writes.

    What it writes is near nothing that a model of the run was trained on.
    """
    c, source = inputs.config, attacker_source(inputs)
    seed = stage_seed(inputs.seed, "evaluate", "attacker")
    attacker = make_attacker(inputs, inputs.models.policy(source, base), seed)
    seeds = [*direct_seeds(inputs.rows("red_team")), *inputs.rows("attack_seeds")]
    trained = [*inputs.trained_turns, *(first_user_text(a.messages) for a in inputs.attacks)]
    texts = trained, [first_user_text(seed.messages) for seed in seeds]
    strategies = c.evaluate.attack_strategies or c.red_team.strategies
    limits = Limits(rounds=1, attacks=c.evaluate.attacks, min_novelty=0.0)
    return make_loop(inputs, attacker, strategies, seeds, texts, limits, None)


def _answers_to_attacks(
    inputs: Inputs, name: str, model: Model, attacker: Loop, written: list[Attack]
) -> tuple[Answers, int]:
    """To attacks, those of many turns in conversation, and the tokens that this took."""
    chat, generator = inputs.models.chat, _generator(inputs, model)
    settings = _task_settings(inputs)
    whole = attacker.converse(written, generator, settings)
    ids = chat.prompts_ids([attack.messages for attack in whole])
    keys = [named_key(inputs.seed, "evaluate", "attacks", attack.id) for attack in whole]
    samples = generator.generate(
        ids, keys, settings.max_new_tokens, settings.sampling, f"evaluate: {name}, attacks"
    )
    prompts = [(f"{ATTACKS}{attack.strategy}", attack) for attack in whole]
    return Answers(prompts, ids, samples), generator.tokens


def _evidence(
    inputs: Inputs,
    tools: Tools,
    replies: dict[str, list[Reply]],
    attacks: dict[str, list[Reply]],
    tried: list[Measurement],
) -> Evidence:
    """What the policies replied, and what the stages before left."""
    steps = (inputs.artifact("sl_data") / name for name in ("responses", "revisions"))
    history = read_json(inputs.artifact("rl") / "history.json")
    halves = inputs.manifest("feedback")["metrics"]["audit"]
    names = [field.name for field in fields(Audit)]
    return Evidence(
        plan=replace(
            whole_plan(inputs),
            policies=tuple(replies),
            judge_is_feedback=_judge_is_feedback(inputs),
        ),
        tools=tools,
        replies=replies,
        revisions=some_dialogues(
            [row for folder in steps for row in read_records(folder, Revision)],
            inputs.config.evaluate.revision_rows,
            inputs.seed,
        ),
        comparisons={
            group: read_records(inputs.artifact("feedback") / "comparisons" / group, Comparison)
            for group in inputs.groups
        },
        pairs={kind: inputs.rows(f"{kind}_pairs") for kind in KINDS},
        classed_replies=inputs.rows("evasiveness"),
        audits={half: Audit(**{n: found[n] for n in names}) for half, found in halves.items()},
        history=history,
        looks=read_looks(inputs.artifact("rl")),
        oracle=_oracle(inputs.config),
        bootstrap_samples=inputs.config.evaluate.bootstrap_samples,
        seed=inputs.seed,
        attacks=attacks,
        benchmarks=tried,
        labels=inputs.manifest("pm_train")["metrics"]["labels"],
        helpfulness=trained_helpfulness(inputs),
    )


def some_dialogues(rows: list[Revision], most: int, seed: int) -> list[Revision]:
    """At most so many rows, of whole dialogues that are drawn by their ids; one at least."""
    if len(rows) <= most:
        return rows
    rounds = Counter(row.prompt_id for row in rows)
    ids, count = list(rounds), max(most // max(rounds.values()), 1)
    kept = {ids[i] for i in sampled(ids, count, seed, "evaluate", "revisions")}
    log.info("evaluate: of %d critique-revision dialogues %d are scored", len(ids), len(kept))
    return [row for row in rows if row.prompt_id in kept]


def trained_helpfulness(inputs: Inputs) -> list[TrainingPair]:
    """The labelled helpfulness pairs that the preference model learned from."""
    group = next(iter(inputs.groups))  # all groups' models learned from the same ones
    records = inputs.artifact("pm_train") / group / "helpfulness"
    return read_records(records, TrainingPair) if records.exists() else []


def policies_of(config: Any) -> dict[str, Policy]:
    """The policies that a run with some config can compare."""
    iterations = looks_of(config.rl)[1:] if config.evaluate.kept_policies else ()
    return POLICIES | {f"rl_cai_{i}": kept_policy(i) for i in iterations}


def compared_policies(config: Any, rl_metrics: Mapping[str, Any]) -> dict[str, Policy]:
    """Of these, the policies that there are: RL may have stopped, and one became RL-CAI itself."""
    kept = rl_metrics.get("other_iterations", [])
    names = {*POLICIES, *(f"rl_cai_{i}" for i in kept)}
    return {name: p for name, p in policies_of(config).items() if name in names}


def whole_plan(inputs: Inputs) -> Plan:
    """What a run will evaluate, principle by principle too."""
    feedback = (p.id for constitution in inputs.groups.values() for p in constitution.feedback)
    return replace(
        plan_of(inputs.config, tuple(inputs.groups)),
        critique_principles=tuple(p.id for p in inputs.constitution.critique_revision),
        feedback_principles=tuple(dict.fromkeys(feedback)),  # groups may share some
    )


def plan_of(config: Any, groups: tuple[str, ...]) -> Plan:
    """What a run with some config will evaluate; ``groups`` are those of its constitution.

    Raises:
      ConfigError: the oracle or the algorithm is none, or a benchmark cannot be read.
    """
    oracle, trials = _oracle(config), _trials(config)
    with naming("config.evaluate.oracle"):
        measures = oracle_measures(oracle) if oracle else ()
    return Plan(
        policies=tuple(policies_of(config)),
        rounds=config.sl_data.rounds,
        oracle=measures,
        second_model=bool(config.second_model.prompts),
        labeler=config.feedback.method,
        other_judge=bool(config.evaluate.judge),
        metrics=make_algorithm(config.rl).shown,
        twins=config.evaluate.twins,
        judged_replies=config.evaluate.judged_replies,
        groups=groups,
        attacks=_attack_strategies(config),
        threshold=config.red_team.threshold,
        benchmarks=benchmarks.measures(trials, "policy"),
        judge_benchmarks=benchmarks.measures(trials, "preference"),
        looks=looks_of(config.rl),
    )


def _attack_strategies(config: Any) -> tuple[str, ...]:
    """Of the held-out attacker."""
    if not config.evaluate.attacks:
        return ()
    with naming("config.evaluate.attack_strategies"):
        names = config.evaluate.attack_strategies or config.red_team.strategies
        return tuple(strategy.name for strategy in named_strategies(names))


def _trials(config: Any) -> list[benchmarks.Trial]:
    """What benchmarks try models by.

    Raises:
      ConfigError: a file cannot be read, or there is no such method.
    """
    items = read_benchmarks(config.evaluate.benchmarks)
    with naming("config.evaluate.benchmark_methods"):
        return benchmarks.trials(items, config.evaluate.benchmark_methods)


def _task_settings(inputs: Inputs) -> TaskSettings:
    c, models = inputs.config, inputs.models
    judge_chat = partial(models.chat_of, models.feedback_source(c.feedback.source))
    return replace(task_settings(inputs, c.red_team.threshold), open_judge_chat=judge_chat)


def _task_tools(inputs: Inputs, model: Model, tools: Tools) -> TaskTools:
    """A policy, and its judges: of harm, who was not climbed where there is one."""
    return TaskTools(
        settings=_task_settings(inputs),
        scorer=_scorer(inputs, model),
        generator=_generator(inputs, model),
        judge=judge_by(tools.second or tools.reward, inputs.config.red_team.refusal),
        reply_judge=ReplyJudge(tools.judge.tools.scorer, tools.judge.tools.open_chat),
    )


def _oracle(config: Any) -> Oracle | None:
    """What knows the truth about replies; evaluation alone may ask it."""
    name = config.evaluate.oracle
    return load_function(name, "config.evaluate.oracle") if name else None


def _generator(inputs: Inputs, model: Model) -> Generator:
    models = inputs.models
    return make_generator(inputs.config.generation, model, models.decode_mesh, models.stop_ids)


def _scorer(inputs: Inputs, model: Model) -> Scorer:
    return make_scorer(inputs.config.generation, model, inputs.models.decode_mesh)


def _tools(inputs: Inputs, base: Model) -> Tools:
    """Models that evaluators run; abstract ahead."""
    c = inputs.config
    judge, *others = (_judge(inputs, base, source) for source in _judge_sources(inputs))
    return Tools(
        reward=make_reward(inputs),
        second=make_reward(inputs, "second_model") if c.second_model.prompts else None,
        base=_scorer(inputs, base),
        judge=judge,
        other_judge=others[0] if others else None,
        reply_judge=(
            ReplyJudge(judge.tools.scorer, judge.tools.open_chat)
            if c.evaluate.judged_replies
            else None
        ),
        temperature=c.generation.temperature or 1.0,
    )


def _judge(inputs: Inputs, base: Model, source: ModelSource) -> Judge:
    """A model that compares replies; it is the base model itself where that is its source."""
    c, models = inputs.config, inputs.models
    return Judge(
        labeler=LABELERS[c.feedback.method],
        tools=make_labeler_tools(inputs, models.policy(source, base), source, inputs.constitution),
        principles=inputs.constitution.feedback,
        per_pair=c.evaluate.judge_principles,
        margin=c.evaluate.judge_margin,
    )


def _judge_sources(inputs: Inputs) -> list[ModelSource]:
    """The feedback model, and the other judge where the config names one."""
    c, models = inputs.config, inputs.models
    other = [models.source(c.evaluate.judge)] if c.evaluate.judge else []
    return [models.feedback_source(c.feedback.source), *other]


def _judge_is_feedback(inputs: Inputs) -> bool:
    """Whether the other judge has the weights whose labels were trained on, by whatever path.

    An adapter changes neither's mind by much.
    """
    feedback, *others = (source.path.resolve() for source in _judge_sources(inputs))
    return feedback in others


def truncates(sampling: Sampling) -> bool:
    """Whether log-probs of samples are not those of the whole distribution."""
    return bool(sampling.top_k) or sampling.top_p < 1


def programs(inputs: Inputs) -> list[Program]:
    """Responses and their scores, and what evaluators run: base and preference model resident."""
    g, models = inputs.config.generation, inputs.models
    sampling = make_sampling(g)
    different: dict[Any, tuple[str, Model]] = {}  # policies of one graph share their programs
    sources = {n: models.policy_source(p) for n, p in policies_of(inputs.config).items()}
    for name, policy in POLICIES.items():
        model = models.policy(sources[name])
        different.setdefault(model.graph, ("" if name == BASE else f" of {policy.label}", model))
    (_, base), *others = different.values()
    tools = _tools(inputs, base)
    responses = [
        program
        for whose, model in different.values()
        for program in _generator(inputs, model).programs(
            f"evaluate: responses{whose}", g.response_tokens, sampling
        )
    ]
    scores = tools.reward.programs("evaluate: scores", g.context_tokens)
    evaluators = [p for e in registry.EVALUATORS.values() for p in e.programs(tools)]
    trials = _trials(inputs.config)
    tried = [
        program
        for whose, model in different.values()
        for program in benchmarks.programs(
            trials, "policy", whose, _task_tools(inputs, model, tools)
        )
    ]
    # Where samples are truncated, each policy scores its own; evaluators list the base model's.
    own = [
        program
        for whose, model in others
        if truncates(sampling)
        for program in _scorer(inputs, model).logprob_programs(
            f"likelihoods{whose}", tools.temperature
        )
    ]
    loading = [p for source in sources.values() for p in models.loading_programs(source)]
    attacker, writers = attacker_source(inputs), tuple[Any, ...]()
    if inputs.config.evaluate.attacks:
        writer = models.policy(attacker, base)
        if attacker != models.source():  # it is there while the policies answer
            writers = (writer.params,)
            responses = [replace(p, resident=writers) for p in responses]
            tried = [replace(p, resident=(*p.resident, *writers)) for p in tried]
        responses += make_attacker(inputs, writer, inputs.seed).programs("evaluate: attacks")
        loading += models.loading_programs(attacker)
    if any(trial.method.judge == "preference" for trial in trials):  # while a policy is there
        *_, (_, under_test) = different.values()
        scores = [replace(p, resident=(under_test.params, *writers)) for p in scores]
    rewards = {"pm_train": tools.reward}
    if tools.second:
        rewards["second_model"] = tools.second
    preference = [p for r in rewards for p in models.loading_programs(models.preference_source(r))]
    params = [p for reward in rewards.values() for p in reward.abstract_params]
    residents: tuple[Any, ...] = (base.params,)
    judges = [judge for judge in (tools.judge, tools.other_judge) if judge]
    for judge, source in zip(judges, _judge_sources(inputs), strict=True):
        if source != models.source():
            loading += models.loading_programs(source)
            residents += (judge.tools.scorer.abstract_params,)
    held = partial(_with_resident, inputs, residents, params)
    beside = (*residents, *params[1:])
    return [
        *with_remedy(map(held, responses), SAMPLING_REMEDY),
        *with_remedy((replace(p, resident=(*p.resident, *beside)) for p in scores), SCORING_REMEDY),
        *with_remedy(map(held, [*evaluators, *own, *tried]), SCORING_REMEDY, "evaluate: "),
        *with_remedy([*preference, *map(held, loading)], MEMORY_REMEDY, "evaluate: "),
    ]


def _with_resident(
    inputs: Inputs, residents: tuple[Any, ...], preference: Any, program: Program
) -> Program:
    """With the models that are resident: the preference model too unless it is offloaded."""
    residents = (*program.resident, *residents)
    if inputs.config.rl.offload:
        return replace(program, resident=residents)
    offload = "config.rl.offload=True"
    return replace(program, resident=(*residents, preference), offload=offload)


def check(inputs: Inputs) -> None:
    """Refuses an oracle that there is not, or that does not say what it measures.

    Raises:
      ConfigError: this, or no held-out seed shows a strategy of the held-out attacker.
    """
    if whole_plan(inputs).attacks:
        seeds = [*direct_seeds(inputs.rows("red_team")), *inputs.rows("attack_seeds")]
        names = inputs.config.evaluate.attack_strategies or inputs.config.red_team.strategies
        with naming("config.evaluate.attack_strategies, with config.data.red_team_seeds"):
            Pool(seeds, named_strategies(names))


def check_benchmarks(inputs: Inputs) -> None:
    """Refuses an item of a benchmark that the models have no room for.

    Raises:
      ConfigError: there is one; the message names its file and line.
    """
    settings = _task_settings(inputs)
    for trial in _trials(inputs.config):
        with naming(f"config.evaluate.benchmarks.{trial.task}"):
            check_lengths(trial.items, trial.method, settings)


def _extra(inputs: Inputs) -> Any:
    """What is measured, the oracle's code, and the items of benchmarks."""
    oracle, plan = _oracle(inputs.config), whole_plan(inputs)
    code = inspect.getsource(sys.modules[oracle.__module__]) if oracle else ""
    items = repr(read_benchmarks(inputs.config.evaluate.benchmarks))
    if plan.attacks:
        items += repr(inputs.trained_turns)
    return [registry.declared_keys(plan), code, sha256(items.encode("utf-8")).hexdigest()]


STAGE = Stage(
    name="evaluate",
    needs=("sl_data", "sl_train", "red_team", "feedback", "pm_train", "second_model", "rl"),
    blocks=("evaluate", "generation", "rl", "sl_data", "feedback", "second_model", "red_team"),
    data={
        "red_team": first_or_all("red_team_prompts", "evaluation", "evaluate.red_team_prompts"),
        "helpful": first_or_all("helpful_prompts", "evaluation", "evaluate.helpful_prompts"),
        "attack_seeds": Selection("red_team_seeds", "evaluation"),
        "attacks": Selection("red_team_attacks", "training"),
        "twins": first("twins", "evaluation", "evaluate.twins"),
        "evasiveness": Selection("evasiveness", "evaluation"),
        **{
            f"{kind}_pairs": Selection(
                f"{kind}_pairs", "evaluation", lambda c: c.evaluate.labelled_pairs
            )
            for kind in KINDS
        },
    },
    constitution=("critique_revision", "feedback", "choice_examples", "thought_examples"),
    groups=("feedback",),
    execute=execute,
    programs=programs,
    extra=_extra,
    check=check,
)
