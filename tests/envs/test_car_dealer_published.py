"""Car dealer: the reader of the published conversations, in both formats."""

import json
from pathlib import Path

import pytest

from envs.car_dealer.published import read_published

FIXTURES = Path(__file__).parents[1] / "fixtures" / "car_dealer"


def test_published_conversations_become_episodes():
    sold, lost, poor = read_published(FIXTURES / "train.json")
    assert [s.is_action for s in sold.segments] == [False, True, False, True, False]
    assert sold.segments[1].text == "Good morning! What can I do for you?\n"
    assert [s.reward for s in sold.segments] == [0, 0, 0, pytest.approx(25.5 / 28.5), 0]
    assert (sold.success, sold.simulator, sold.policy) == (True, "lm", "published")
    assert lost.segments[0].text == "Start\nYou there, I need an Audi.\n"
    assert (lost.success, lost.total_return) == (False, pytest.approx(-0.4))
    assert (poor.success, poor.total_return) == (False, 0.0)


def test_published_conversations_by_personality_are_read_in_order():
    episodes = list(read_published(FIXTURES / "by_personality.json", reward="revenue"))
    assert [e.total_return for e in episodes] == [25.5, 0.0]


def test_the_older_published_format_is_decided_by_the_last_estimate():
    sold, lost = read_published(FIXTURES / "raw_generator.json")
    assert (sold.success, sold.total_return) == (True, pytest.approx(0.8))
    assert (lost.success, lost.total_return) == (False, 0.0)
    (revenue, _) = read_published(FIXTURES / "raw_generator.json", reward="revenue")
    assert revenue.total_return == 24.0


@pytest.mark.parametrize("reward", ["fancy", "revenue"])
def test_a_conversation_without_its_output_was_cut_off(tmp_path, reward):
    records = json.loads((FIXTURES / "train.json").read_text())
    for record in records:
        del record["output"]
    path = tmp_path / "unfinished.json"
    path.write_text(json.dumps(records))
    finished = list(read_published(FIXTURES / "train.json"))
    for whole, cut in zip(finished, read_published(path, reward=reward), strict=True):
        assert (cut.terminated, cut.truncated, cut.success, cut.total_return) == (False, False, False, 0.0)
        last = len(whole.segments) - whole.segments[-1].is_action
        assert [s.text for s in cut.segments] == [s.text for s in whole.segments[:last]]


@pytest.mark.parametrize(("budget", "found"), [("much", "'much'"), (None, "None"), (True, "True")])
def test_a_record_in_neither_format_is_named_by_its_budget(tmp_path, budget, found):
    path = tmp_path / "bad.json"
    lines = [{"role": "Seller", "text": "Hello."}]
    path.write_text(json.dumps([{"buyer_info": {"budget": budget}, "lines": lines}]))
    with pytest.raises(ValueError, match=rf"conversation 1: buyer_info\.budget: found {found}"):
        next(read_published(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["output"].update(msrp="27k"), r"conversation 2: output\.msrp: found '27k'"),
        (lambda r: r["lines"][0].update(role="Clerk"), r"lines\[0\]\.role: found 'Clerk'"),
        (lambda r: r["lines"][1].pop("text"), r"lines\[1\]\.text: found None"),
        (lambda r: r.update(lines=[]), "the seller says nothing"),
        (lambda r: r["buyer_info"].update(budget=True), r"buyer_info\.budget: found True"),
        (lambda r: r["buyer_info"].update(budget="70k"), r"buyer_info\.budget: found '70k'"),
        (lambda r: r.update(output=None), "output: found None"),
        (lambda r: r.pop("buyer_info"), "buyer_info: found None; fields are lines, output"),
    ],
)
def test_a_bad_record_is_named_with_its_field(tmp_path, change, message):
    records = json.loads((FIXTURES / "train.json").read_text())
    change(records[1])
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(records))
    episodes = read_published(path)
    next(episodes)
    with pytest.raises(ValueError, match=message):
        next(episodes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{]", "bad.json: not a JSON file: .* line 1"), ('"x"', "found str where a list should be")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_published(path))
