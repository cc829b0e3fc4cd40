"""Simulators that are trained: on recorded answers, by the learner of every run, from the command line."""

from dataclasses import replace

import numpy as np
import pytest
from support import tiny_language_model

from algos.generation import load_generator
from envs import registry
from envs.answering import Request
from envs.answers import relabelled
from envs.car_dealer import answering as car_dealer
from envs.core import Episode, Segment
from envs.registry import ANSWERS, get_task
from envs.twenty_questions.answering import MAX_TOKENS, prompt
from envs.twenty_questions.behaviour import _texts
from envs.twenty_questions.knowledge import knowledge
from envs.twenty_questions.oracle import KnowledgeOracle
from lmrl_ray.config import ConfigError
from lmrl_ray.data import EpisodeDataset, EpisodeWriter, build
from lmrl_ray.resolve import find_policy
from lmrl_ray.simulators.training import write_answers

TASK = "twenty-questions"
OBJECTS = 40
"""What the trained simulator is asked about: the first ones of the list."""
MARGIN = 0.05
"""How much more often than the most frequent answer the trained one must be right: 2.5 standard errors of
600 answers, of which half are yes."""


def examination(object_id, rng, paraphrases, questions):
    """A dialogue about an object in which the table says yes as often as no."""
    attributes = knowledge().attributes
    segments = [Segment("Questions:\n", is_action=False)]
    asked = [[i for i, a in enumerate(attributes) if a.holds(object_id) is holds] for holds in (True, False)]
    for number in range(questions):
        wordings = _texts(paraphrases)[rng.choice(asked[number % 2])]
        question = wordings[int(rng.integers(len(wordings)))]
        segments.append(Segment(question, is_action=True, reward=-1.0))
        segments.append(Segment(f"{KnowledgeOracle().answer(object_id, question)}\n", is_action=False))
    return Episode(TASK, tuple(segments), True, False, False, 0, object_id, "kb", "examiner")


@pytest.mark.slow
def test_a_trained_simulator_answers_questions_that_it_never_saw(tmp_path, out, lmrl):
    rng = np.random.default_rng(0)
    seen = [examination(k % OBJECTS, rng, "train", 20) for k in range(2000)]
    with EpisodeWriter(tmp_path / "seen.parquet", TASK) as writer:
        for episode in seen:
            writer.write(episode)
    texts = [s.text for e in seen[:500] for s in relabelled(e).segments]
    tiny_language_model(texts, width=64, vocab=800).save(tmp_path / "start")
    trained = lmrl(
        "simulator", "train", TASK, "--data", tmp_path / "seen.parquet", "--model", tmp_path / "start",
        "--steps", 250, "--out", out, "--set", "training.batch_episodes=8", "--set", "optimizer.lr=4e-3",
        "--set", "optimizer.engine=torch",
    )  # fmt: skip
    assert trained.code == 0, trained.stderr

    known = {s.text for e in seen for s in e.segments if s.is_action}
    unseen = [examination(k % OBJECTS, rng, "held-out", 2) for k in range(300)]
    asked = [
        (e.task_id, q.text, a.text) for e in unseen for q, a in zip(*[iter(e.segments[1:])] * 2, strict=True)
    ]
    assert known.isdisjoint(question for _, question, _ in asked)
    model = load_generator(find_policy(f"{TASK}-simulator-s0", out))
    requests = [Request("", prompt(i, question), MAX_TOKENS) for i, question, _ in asked]
    said = [line for i in range(0, len(requests), 50) for line in model.lines(requests[i : i + 50])]
    answers = [answer.strip() for _, _, answer in asked]
    majority = max(answers.count(a) for a in set(answers)) / len(answers)
    agreement = np.mean([s == a for s, a in zip(said, answers, strict=True)])
    print(f"agreement {agreement:.3f}, majority {majority:.3f}")
    assert agreement > majority + MARGIN


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dialogues")
    for task in ("twenty-questions", "guess-my-city", "car-dealer"):
        build(task, 12, 0, folder / f"{task}.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("task", ["twenty-questions", "guess-my-city", "car-dealer"])
def test_each_dialogue_task_has_a_simulator_that_can_be_trained_and_used(
    task, dialogues, tmp_path, out, lmrl, monkeypatch
):
    # What is hardly trained ends no line, on either side.
    monkeypatch.setattr(car_dealer, "MAX_TOKENS", 8)
    for name in (task, f"{task}{ANSWERS}"):
        monkeypatch.setitem(registry._TASKS, name, replace(get_task(name), max_action_tokens=8))
    start = tmp_path / "start"
    texts = [s.text for e in EpisodeDataset(dialogues / f"{task}.parquet") for s in e.segments]
    tiny_language_model(texts, width=16, positions=1024, vocab=800).save(start)
    quick = ["--set", "training.batch_episodes=4", "--set", "optimizer.engine=torch"]
    trained = lmrl(
        "simulator", "train", task, "--data", dialogues / f"{task}.parquet", "--model", start, "--steps", 2,
        "--out", out, *quick,
    )  # fmt: skip
    assert trained.code == 0, trained.stderr
    assert "learnt the answers of 12 dialogues (0 left out)" in trained.stdout
    assert "of 250 exchanges (95 % interval" in trained.stdout
    run = out / f"{task}-simulator-s0"
    assert f"--set env.simulator=lm:{run}\n" in trained.stdout

    scored = lmrl(
        "eval", start, task, "--episodes", 2, "--json", "--out", out, "--set", f"env.simulator=lm:{run}",
    )  # fmt: skip
    assert scored.code == 0, scored.stderr
    rows = scored.json
    assert [row["policy"] for row in rows] == [*get_task(task).baselines, "bc"]
    assert {row["simulator"] for row in rows} == {"lm"}
    assert {row["failed"] for row in rows} == {0}


# --- what cannot be used -----------------------------------------------------------------------


def test_data_of_another_task_are_an_error(dialogues, tmp_path):
    with pytest.raises(ConfigError, match="holds episodes of car-dealer, not of guess-my-city"):
        write_answers("guess-my-city", dialogues / "car-dealer.parquet", tmp_path / "a.parquet")


def test_dialogues_without_a_known_secret_are_left_out_and_counted(dialogues, tmp_path):
    episodes = list(EpisodeDataset(dialogues / "guess-my-city.parquet"))
    mixed = tmp_path / "mixed.parquet"
    with EpisodeWriter(mixed, "guess-my-city") as writer:
        for i, episode in enumerate(episodes):
            writer.write(replace(episode, task_id=-1) if i % 2 else episode)
    assert write_answers("guess-my-city", mixed, tmp_path / "answers.parquet") == (6, 6)

    with EpisodeWriter(mixed, "guess-my-city") as writer:
        writer.write(replace(episodes[0], task_id=-1))
    with pytest.raises(ConfigError, match="none of its 1 dialogues says what the secret was"):
        write_answers("guess-my-city", mixed, tmp_path / "answers.parquet")


def test_the_command_line_says_what_is_wrong(lmrl, dialogues, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    data = dialogues / "twenty-questions.parquet"
    answer = lmrl("simulator", "train", "maze-fo", "--data", data, "--out", tmp_path)
    assert answer.code == 1
    assert answer.stderr.startswith("error: maze-fo: nobody answers here")
    assert answer.stderr.endswith("choose twenty-questions, guess-my-city, car-dealer\n")
    for env, message in (
        (f"lm:{tmp_path}/none", "there is no such folder; train one with `lmrl simulator train TASK`"),
        ("api:some-model", "OPENAI_BASE_URL"),
        ("rule", "found 'rule'; want kb (built in), lm:PATH or api:MODEL"),
    ):
        answer = lmrl(
            "data", "build", TASK, "--episodes", 1, "--out", tmp_path / "x.parquet",
            "--set", f"env.simulator={env}",
        )  # fmt: skip
        assert answer.code == 1
        assert message in answer.stderr


def test_an_encoder_decoder_is_not_trained_but_may_be_used(lmrl, dialogues, tmp_path):
    from transformers import T5Config

    folder = tmp_path / "t5"
    T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=1).save_pretrained(folder)
    data = dialogues / f"{TASK}.parquet"
    answer = lmrl("simulator", "train", TASK, "--data", data, "--model", folder, "--out", tmp_path)
    assert answer.code == 1
    assert "is an encoder-decoder; such a model can be a simulator as it is" in answer.stderr
