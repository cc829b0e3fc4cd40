"""A model on the other side of a dialogue: what it is asked, what of its answers counts, what is learnt."""

import json

import numpy as np
import pytest

from envs.answers import relabelled
from envs.car_dealer.answering import ModelBuyer, split_verdict
from envs.car_dealer.buyers import all_buyers
from envs.conformance import check_env
from envs.core import Episode
from envs.guess_my_city.facts import load_cities
from envs.registry import UnknownTaskError, get_task, task_ids

DIALOGUES = ("twenty-questions", "guess-my-city", "car-dealer")


class Says:
    """A model that says the same to everything, and keeps what it was asked."""

    kind = "lm"

    def __init__(self, line):
        self.line = line
        self.asked = []

    def complete(self, request):
        self.asked.append(request)
        return self.line


def play(task, model, seed=0, **env):
    spec = get_task(task)
    return spec.play(spec.make(simulator=model, **env), spec.baseline("behaviour"), seed)


# --- who answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", DIALOGUES)
def test_the_kind_of_simulator_is_in_every_record(task):
    model = Says("Yes.")
    assert play(task, model).simulator == "lm"
    model.kind = "api"
    assert play(task, model).simulator == "api"
    assert get_task(task).make().simulator == get_task(task).simulator


@pytest.mark.parametrize("task", DIALOGUES)
def test_the_built_in_simulator_can_be_named(task):
    spec = get_task(task)
    named = spec.play(spec.make(simulator=spec.simulator), spec.baseline("behaviour"), 3)
    assert named == spec.play(spec.make(), spec.baseline("behaviour"), 3)


@pytest.mark.parametrize("task", DIALOGUES)
@pytest.mark.slow
def test_an_environment_with_a_model_conforms(task):
    check_env(task, simulator=Says("Yes, $20,000."))


@pytest.mark.parametrize(
    ("task", "env", "message"),
    [
        (
            "twenty-questions",
            {"simulator": "rule"},
            r"found 'rule'; want kb \(built in\), lm:PATH or api:MODEL",
        ),
        ("twenty-questions", {"simulator": "lm:"}, "found 'lm:'"),
        ("guess-my-city", {"base_url": "http://here/v1"}, "base_url: is for simulator=api:MODEL"),
        ("maze-fo", {"simulator": "lm:x"}, "nobody answers here"),
    ],
)
def test_a_simulator_that_cannot_be_is_an_error(task, env, message):
    with pytest.raises(ValueError, match=message):
        get_task(task).make(**env)


# --- twenty questions --------------------------------------------------------------------------


def test_the_object_and_the_question_are_all_that_a_model_is_asked():
    model = Says("no")
    play("twenty-questions", model)
    assert model.asked[0].prompt == (
        "Answer the question about the object truthfully.\nobject: (Doll, Toy doll, Plush doll)\n"
        "question: Is it alive?\nanswer:\n"
    )
    assert {r.seed for r in model.asked} == {None}


@pytest.mark.parametrize(
    ("said", "heard", "valid"),
    [
        ("Yes.", "Yes.\n", True),
        ("NO", "No.\n", True),
        ("i'm not sure", "I'm not sure.\n", True),
        ("Yes, it is a cat.", "I can't answer that.\n", False),
        ("Cat", "I can't answer that.\n", False),
        ("", "I can't answer that.\n", False),
    ],
)
def test_anything_but_the_four_answers_counts_as_not_understood(said, heard, valid):
    env = get_task("twenty-questions").make(simulator=Says(said))
    env.reset(seed=0, options={"task_id": 10})
    observation, reward, _, _, info = env.step("Is it alive?\n")
    assert (observation, reward, info["valid"]) == (heard, -1.0, valid)


def test_a_model_decides_neither_a_win_nor_a_loss():
    env = get_task("twenty-questions").make(simulator=Says("No."))
    env.reset(seed=0, options={"task_id": 10})
    assert env.step("Is it a cat?\n")[1:3] == (0.0, True)
    env = get_task("twenty-questions").make(simulator=Says("Yes."))
    env.reset(seed=0, options={"task_id": 10})
    assert env.step("Is it a dog?\n")[1:3] == (-1.0, False)


# --- guess my city -----------------------------------------------------------------------------


def city(name):
    return next(i for i, c in enumerate(load_cities()) if c.name == name)


def test_a_model_is_told_the_city_and_its_facts():
    model = Says("Yes.")
    env = get_task("guess-my-city").make(simulator=model)
    env.reset(seed=0, options={"task_id": city("Lima")})
    env.step("Is it on the coast?\n")
    facts, question = model.asked[0].prompt.splitlines()[1:3]
    assert facts.startswith("city: Lima; country Peru; continent South America")
    assert question == "question: Is it on the coast?"


@pytest.mark.parametrize("said", ["It is Lima.", "LIMA!", "", "I am from lima, you know."])
def test_an_answer_that_names_the_city_is_withheld(said):
    env = get_task("guess-my-city").make(simulator=Says(said))
    env.reset(seed=0, options={"task_id": city("Lima")})
    assert env.step("What is it best known for?\n")[0] == "I can't say.\n"


def test_the_climate_does_not_name_lima():
    env = get_task("guess-my-city").make(simulator=Says("Its climate is mild."))
    env.reset(seed=0, options={"task_id": city("Lima")})
    assert env.step("What is it best known for?\n")[0] == "Its climate is mild.\n"


# --- car dealer --------------------------------------------------------------------------------

BUYER = next(i for i, b in enumerate(all_buyers()) if b.budget == 50_000)


def sell(model, *lines):
    """The last step of a conversation with BUYER in which these are the seller's lines."""
    env = get_task("car-dealer").make(simulator=model, reward="revenue")
    env.reset(seed=0, options={"task_id": BUYER})
    for line in lines:
        step = env.step(f"{line}\n")
    return step


ACCEPT = "Fine, I take it. Output: Decision=Accept MSRP=$99,000 Buy Price=$1"


def test_a_buyer_sees_its_record_and_the_dialogue():
    model = Says("Hm.")
    sell(model, "Hello!", "What would you like?")
    assert (
        model.asked[1].prompt
        == f"Start\n{all_buyers()[BUYER].information}Hello!\nHm.\nWhat would you like?\n"
    )
    assert model.asked[0].seed != model.asked[1].seed


def test_a_sale_is_made_at_the_price_that_the_seller_named():
    observation, reward, terminated, _, info = sell(Says(ACCEPT), "I can let you have it for $32,000.")
    assert (observation, reward, terminated, info["success"]) == ("Fine, I take it.\n", 32.0, True, True)


def test_a_taken_counter_offer_is_a_price_too():
    assert sell(Says("I'd pay $28,000."), "It is $32,000.", "Deal.")[2] is False
    model = Says("I'd pay $28,000.")
    env = get_task("car-dealer").make(simulator=model, reward="revenue")
    env.reset(seed=0, options={"task_id": BUYER})
    env.step("I can let you have it for $32,000.\n")
    model.line = ACCEPT
    assert env.step("It's a deal.\n")[1] == 28.0


@pytest.mark.parametrize("line", ["Hello!", "It costs $50,001.", "Either $20,000 or $30,000."])
def test_an_accept_without_a_price_within_the_budget_is_no_sale(line):
    observation, reward, terminated, _, _ = sell(Says(ACCEPT), line)
    assert (observation, reward, terminated) == ("Fine, I take it.\n", 0.0, False)


def test_a_buyer_may_leave_and_must_at_the_last_line():
    leave = sell(Says("No way. Output: Decision=Reject"), "Hello!")
    assert (leave[0], leave[2], leave[4]["success"]) == ("No way.\n", True, False)
    undecided = sell(Says("Hm."), *["It is $32,000."] * 25)
    assert (undecided[2], undecided[4]["success"]) == (True, False)


@pytest.mark.parametrize(
    ("line", "visible", "accepts"),
    [
        ("Fine. Output: Decision=Accept MSRP=$27,000 Buy Price=$25,500", "Fine.", True),
        ("No. Output: Decision=Reject MSRP=$27,000", "No.", False),
        ("Output: Decision=Reject", "", False),
        ("I accept.", "I accept.", None),
        ("Output: Decision=Acceptable", "Output: Decision=Acceptable", None),
    ],
)
def test_the_published_decision_is_split_from_the_line(line, visible, accepts):
    assert split_verdict(line) == (visible, accepts)


def test_a_conversation_goes_on_from_its_state():
    def buyer():
        fresh = ModelBuyer(Says("I'd pay $28,000."))
        fresh.begin(all_buyers()[BUYER])
        return fresh

    first, second, rng = buyer(), buyer(), np.random.default_rng(0)
    first.reply("A Tesla sedan with a sunroof for $40,000?\n", rng, last=False)
    second.set_state(json.loads(json.dumps(first.get_state())))
    first._model.line = second._model.line = ACCEPT
    state = rng.bit_generator.state
    replies = []
    for one in (first, second):
        rng.bit_generator.state = state
        replies.append(one.reply("Deal, take it.\n", rng, last=True))
    assert replies[0] == replies[1]
    assert replies[0].decision.price == 28_000


# --- learning from answers ---------------------------------------------------------------------


@pytest.mark.parametrize("task", DIALOGUES)
def test_answers_become_actions_and_a_model_is_asked_as_it_was_trained(task):
    spec = get_task(task)
    episode = spec.data_episode(spec.make(), 5)
    answers = relabelled(episode)
    assert answers.task == f"{task}-answers"
    assert [s.is_action for s in answers.segments] == [False, True] * episode.length
    said = [s.text.split(" Output:")[0].rstrip() for s in answers.segments if s.is_action]
    assert said == [s.text.rstrip() for s in episode.segments[2::2]]

    lines = iter(said)
    model = Says("")
    model.complete = lambda request: model.asked.append(request) or next(lines)
    env = spec.make(simulator=model)
    env.reset(seed=episode.seed, options={"task_id": episode.task_id})
    for action in episode.segments[1::2]:
        if env.step(action.text)[2]:
            break
    texts = [s.text for s in answers.segments]
    # A winning question is not put to a model: its last exchange is the rules' own.
    for i, request in enumerate(model.asked):
        before = texts[: 2 * i + 1] if get_task(task).side().window is None else texts[2 * i : 2 * i + 1]
        assert request.prompt == "".join(before)
    assert len(model.asked) >= episode.length - 1


def test_the_buyer_s_last_line_says_how_it_ended():
    spec = get_task("car-dealer")
    ends = set()
    for seed in range(12):
        episode = spec.data_episode(spec.make(), seed)
        last = relabelled(episode).segments[-1].text
        assert last.endswith(f" Output: Decision={'Accept' if episode.success else 'Reject'}\n")
        ends.add(episode.success)
    assert ends == {True, False}


@pytest.mark.parametrize("task", DIALOGUES)
def test_a_dialogue_about_nobody_knows_what_teaches_nothing(task):
    spec = get_task(task)
    e = spec.data_episode(spec.make(), 0)
    unknown = Episode(task, e.segments, True, False, False, 0, -1, "lm", "published")
    assert relabelled(unknown) is None


@pytest.mark.parametrize("task", DIALOGUES)
@pytest.mark.slow
def test_the_answering_side_is_a_task_that_conforms_and_is_not_listed(task):
    check_env(f"{task}-answers")
    assert f"{task}-answers" not in task_ids()


@pytest.mark.parametrize(
    ("task", "argument"),
    [("twenty-questions", "split"), ("guess-my-city", "cities"), ("car-dealer", "split")],
)
@pytest.mark.parametrize("part", ["train", "held-out"])
def test_the_answering_side_draws_from_the_games_split(task, argument, part):
    game = get_task(task).make(**{argument: part})
    env = get_task(f"{task}-answers").make(**{argument: part})
    drawn = {env.reset(seed=seed)[1]["task_id"] for seed in range(60)}
    assert len(drawn) > 10
    assert drawn <= set(game.split_tasks)
    assert env.split_tasks == game.split_tasks


def test_the_answers_that_a_baseline_knows_are_of_the_games_split(monkeypatch):
    env = get_task("twenty-questions-answers").make(split="held-out")
    counted = set()
    monkeypatch.setattr(env, "_turns", lambda seed, task_id: counted.add(task_id) or [])
    assert env.usual_answers == []
    assert counted == set(env.split_tasks)


@pytest.mark.parametrize("task", DIALOGUES)
def test_the_built_in_answer_earns_1_and_nonsense_0(task):
    spec = get_task(f"{task}-answers")
    env = spec.make()
    rewards = []
    for seed in range(30):
        env.reset(seed=seed)
        rewards.append(env.step(env.privileged()["answer"])[1])
    assert rewards == [1.0] * 30
    env.reset(seed=0)
    assert env.step("Output: Decision=Accept\n")[1] == 0.0


def test_another_wording_of_the_built_in_answer_agrees():
    env = get_task("guess-my-city-answers").make()
    agreed = set()
    for seed in range(60):
        env.reset(seed=seed)
        if env.privileged()["answer"].startswith("No"):
            agreed.add(env.step("No.\n")[1])
    assert 1.0 in agreed


def test_always_saying_the_most_frequent_thing_is_a_baseline():
    spec = get_task("twenty-questions-answers")
    returns = [spec.play(spec.make(), spec.baseline("majority"), seed).total_return for seed in range(4)]
    assert set(returns) <= {0.0, 1.0}


def test_a_task_in_which_nobody_answers_has_no_answering_side():
    with pytest.raises(UnknownTaskError, match="maze-fo: nobody answers here"):
        get_task("maze-fo-answers")
