"""ILQL: exact loss values and fixed points on tables, and it solves small problems (T2-T6, T12, T15, T16)."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_games import SEEN, STITCH, Stitch, requests_of, returns
from support import DIALOGUE_TEXTS, DIALOGUES, episode_of, fit, gradients, tiny_language_model
from torch import nn
from torch.nn import functional as F

from algos.batch import PackedBatch, empty_batch, pack
from algos.bc import BC, BCConfig
from algos.ilql import ILQL, ILQLConfig
from algos.networks import QHead, ValueHead
from algos.play import context_rule
from algos.policy import ValueHeads
from algos.tokens import ContextRule, TokenEpisodeBuilder, encode_episode
from algos.values import discounts
from envs.maze.env import MazeEnv
from envs.registry import get_task

ALL = ContextRule(window=None, max_tokens=256, reserve=8)
LATEST = ContextRule(window=1, max_tokens=256, reserve=8)
STATES = 8
START = tiny_language_model(["move left\n"])


class OneHot(nn.Module):
    """A trunk whose state is the last token read, so that the heads below it are tables."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        return SimpleNamespace(last_hidden_state=F.one_hot(input_ids, STATES).float())


def table_q(values):
    """A Q head that looks its [state][token] up."""
    head = QHead(STATES, STATES)
    head.features = nn.Identity()
    head.weight = nn.Parameter(torch.as_tensor(values, dtype=torch.float32).T.clone())
    head.bias.requires_grad_(False)
    return head


def table_v(values):
    head = ValueHead(STATES)
    head.net = nn.Linear(STATES, 1, bias=False)
    head.net.weight = nn.Parameter(torch.as_tensor(values, dtype=torch.float32)[None].clone())
    return head


def zeros():
    return torch.zeros(STATES, STATES)


def tabular(config, q1=None, q2=None, v=None, target1=None, target2=None):
    """ILQL on tables (zero where not given)."""
    algorithm = ILQL(config, START)
    q = [table_q(zeros() if t is None else t) for t in (q1, q2)]
    algorithm.online_values = ValueHeads(OneHot(), q, table_v(torch.zeros(STATES) if v is None else v))
    algorithm.target_trunk = OneHot()
    targets = [table_q(zeros() if t is None else t) for t in (target1, target2)]
    algorithm.target_q = nn.ModuleList(targets).requires_grad_(False)
    if algorithm.target_v is not None:
        algorithm.target_v = copy.deepcopy(algorithm.online_values.v).requires_grad_(False)
    return algorithm


def q_of(algorithm):
    return algorithm.online_values.q[0].weight.detach().T


def v_of(algorithm):
    return algorithm.online_values.v.net.weight.detach()[0]


def descend(algorithm, batch, steps=400, lr=1.0):
    """Plain gradient descent."""
    parameters = [p for p in algorithm.parameters() if p.requires_grad]
    for _ in range(steps):
        for p, g in zip(parameters, torch.autograd.grad(algorithm(batch).value, parameters), strict=True):
            p.data -= lr * g
        algorithm.after_step()


def game(*turns, last=7, terminated=True, rule=LATEST):
    """An episode of (state token, action tokens, reward)."""
    builder = TokenEpisodeBuilder(rule)
    for state, actions, reward in turns:
        builder.add_observation(np.asarray([state]))
        builder.add_action(np.asarray(actions), np.zeros(len(actions)), reward, valid=True)
    builder.add_observation(np.asarray([last]))
    return builder.build(terminated)


def one_batch(*episodes):
    (batch,) = pack(episodes, 10_000)
    return batch


# --- Exact values of the loss (T6).


def loss_batch(v_final=None):
    """Two action tokens, 2 and 3, in the states 0 and 1; state 2 follows."""
    return PackedBatch(
        input_ids=torch.tensor([[0, 1, 2]]),
        mask=torch.ones(1, 3, dtype=torch.bool),
        state_idx=torch.tensor([0, 1]),
        action_tok=torch.tensor([2, 3]),
        next_state_idx=torch.tensor([1, 2]),
        next_tok=torch.tensor([3, -1]),
        reward=torch.tensor([0.0, 1.0]),
        continues=torch.tensor([1.0, 0.0 if v_final is None else 1.0]),
        turn_end=torch.tensor([True, True]),
        chain_end=torch.tensor([False, True]),
        logprob=torch.zeros(2),
        observed_idx=torch.zeros(0, dtype=torch.int64),
        observed_tok=torch.zeros(0, dtype=torch.int64),
        entry=torch.arange(2),
        denominator=2.0,
    )


def row_table(first, second):
    """Logits (0, 1, 2, 3), shifted so that token 2 is worth `first` in state 0 and 3 `second` in state 1."""
    table = torch.full((STATES, STATES), -1e4)
    ramp = torch.arange(4.0)
    table[0, :4] = ramp - 2 + first
    table[1, :4] = ramp - 3 + second
    return table


def loss_pieces(v_final=None, **config):
    algorithm = tabular(
        ILQLConfig(gamma=0.9, **config),
        row_table(0.5, 0.2),
        row_table(0.4, 0.3),
        [0.1, 0.6, v_final or 0.0, 0, 0, 0, 0, 0],
        row_table(0.7, 0.1),
        row_table(0.3, 0.5),
    )
    return algorithm(loss_batch(v_final))


LOSSES = {  # Q loss (both heads), V loss, total
    "terminated": ({}, 0.1604 + 0.1274, 0.02575, 0.31355),
    "bootstrapped": ({"v_final": 0.5}, 0.391025 + 0.3355251, 0.02575, 0.7523001),
    "tau .9": ({"tau": 0.9}, 0.2878, 0.01525, 0.30305),
    "cql": ({"cql_weight": 0.1}, 0.2878, 0.02575, 0.5015879),
    "cql in chunks": ({"cql_weight": 0.1, "lse_chunk": 1}, 0.2878, 0.02575, 0.5015879),
}


@pytest.mark.parametrize("case", LOSSES)
def test_the_loss_has_its_hand_computed_value(case):
    arguments, q, v, total = LOSSES[case]
    loss = loss_pieces(**arguments)
    assert loss.metrics["loss/q"].item() == pytest.approx(q, abs=1e-6)
    assert loss.metrics["loss/v"].item() == pytest.approx(v, abs=1e-6)
    assert loss.value.item() == pytest.approx(total, abs=1e-6)
    if "cql" in case:
        assert loss.metrics["loss/cql"].item() == pytest.approx(2 * 0.9401896, abs=1e-6)


# --- Expectile regression (T3).


@pytest.mark.parametrize(("target", "expected"), [(1.0, -0.35), (0.0, 0.15)])
def test_gradient_of_the_expectile_loss(target, expected):
    table = zeros()
    table[0, 1] = target
    algorithm = tabular(ILQLConfig(tau=0.7), v=[0.5] + [0] * 7, target1=table, target2=table)
    algorithm(one_batch(game((0, [1], 0)))).value.backward()
    assert algorithm.online_values.v.net.weight.grad[0, 0].item() == pytest.approx(expected, abs=1e-6)


BINARY = {0.5: 0.1, 0.7: 0.205882, 0.9: 0.5, 0.95: 0.678571, 0.99: 0.916667}
THREE = {0.5: 1.0, 0.7: 1.307692, 0.8: 1.5, 0.9: 1.727273, 0.95: 1.857143, 0.99: 1.970297}
EXPECTILES = [
    *((tau, [1] * 1 + [0] * 9, v) for tau, v in BINARY.items()),
    *((tau, [0, 1, 2], v) for tau, v in THREE.items()),
    *((tau, [0, 1], tau) for tau in BINARY),
    (0.99, [1] + [0] * 99, 0.5),
]


@pytest.mark.parametrize(("tau", "values", "expected"), EXPECTILES)
def test_values_settle_at_the_expectile_of_q(tau, values, expected):
    table = zeros()
    table[0, 1:4] = torch.tensor([0.0, 1.0, 2.0])  # the token v + 1 is worth v
    algorithm = tabular(ILQLConfig(tau=tau, polyak=1e-9), target1=table, target2=table + 1)
    batch = one_batch(*(game((0, [v + 1], 0)) for v in values))
    descend(algorithm, batch, steps=150 if len(values) < 50 else 600, lr=1.0)
    assert v_of(algorithm)[0].item() == pytest.approx(expected, abs=1e-3)


# --- Fixed points of the whole algorithm (T2, T4, T15).

BACKUPS = {
    "one-step": {},
    "turn": {"backup": "turn"},
    "n-step": {"backup": "n-step", "n_step": 2},
    "long n-step": {"backup": "n-step", "n_step": 50},
    "lambda": {"backup": "lambda", "lam": 0.5},
    "Monte-Carlo": {"backup": "lambda", "lam": 1.0},
    "target's V": {"next_value": "target"},
}


@pytest.mark.parametrize("backup", BACKUPS)
@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_three_state_chain_is_solved_by_every_backup(backup, tau):  # T2
    algorithm = tabular(ILQLConfig(gamma=0.9, tau=tau, polyak=1.0, **BACKUPS[backup]))
    descend(algorithm, one_batch(game((0, [4], 0), (1, [5], 0), (2, [6], 1))), steps=150)
    expected = torch.tensor([0.81, 0.9, 1.0])
    torch.testing.assert_close(q_of(algorithm)[[0, 1, 2], [4, 5, 6]], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(v_of(algorithm)[:3], expected, atol=1e-3, rtol=0)


A, B, C, D = 3, 4, 5, 6
STITCHING = (game((0, [A], 0), (1, [C], 0)), game((0, [B], -0.5), (1, [D], 1)))


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9, 0.99, 0.999])
def test_stitching_approaches_the_best_way_that_was_never_seen(tau):  # T4
    algorithm = tabular(ILQLConfig(gamma=1.0, tau=tau, polyak=1.0))
    descend(algorithm, one_batch(*STITCHING), steps=150)
    q, v = q_of(algorithm), v_of(algorithm)
    found = [q[1, C], q[1, D], v[1], q[0, A], q[0, B], v[0]]
    expected = [0, 1, tau, tau, tau - 0.5, tau * tau + (1 - tau) * (tau - 0.5)]
    assert [float(x) for x in found] == pytest.approx(expected, abs=2e-3)
    assert tau == 0.5 or q[0, A] > q[0, B]


def test_monte_carlo_returns_do_not_stitch():  # T4
    algorithm = tabular(ILQLConfig(gamma=1.0, polyak=1.0, backup="lambda", lam=1.0))
    descend(algorithm, one_batch(*STITCHING), steps=100)
    assert q_of(algorithm)[0, [A, B]].tolist() == pytest.approx([0.0, 0.5], abs=1e-3)


def test_a_terminal_action_is_worth_its_reward():  # T15: 100 where it bootstraps from itself
    algorithm = tabular(ILQLConfig(gamma=0.99, polyak=1.0))
    descend(algorithm, one_batch(game((0, [4], 1))), steps=100)
    assert q_of(algorithm)[0, 4].item() == pytest.approx(1.0, abs=1e-3)


def test_a_terminal_action_of_four_tokens_is_worth_its_discounted_reward():  # T15: not 25.4
    algorithm = tabular(ILQLConfig(gamma=0.99, polyak=1.0))
    descend(algorithm, one_batch(game((0, [1, 2, 3, 4], 1))), steps=200)
    found = q_of(algorithm)[[0, 1, 2, 3], [1, 2, 3, 4]].tolist()
    assert found == pytest.approx([0.99**3, 0.99**2, 0.99, 1.0], abs=1e-3)


def test_a_truncated_action_is_worth_more_by_the_value_of_the_last_observation():  # T15
    algorithm = tabular(ILQLConfig(gamma=0.99, polyak=1.0), v=[0] * 7 + [0.5])
    descend(algorithm, one_batch(game((0, [4], 1), terminated=False)), steps=100)
    assert q_of(algorithm)[0, 4].item() == pytest.approx(1.495, abs=1e-3)
    assert v_of(algorithm)[7].item() == 0.5, "a state in which nothing was done is not learnt"


def test_discounts_per_token_and_per_turn():  # T1
    batch = one_batch(game((0, [1, 2], -1), (5, [3, 4, 6], -1)))
    assert discounts(batch, 0.9, "token").tolist() == pytest.approx([0.9, 0.9, 0.9, 0.9, 0])
    assert discounts(batch, 0.9, "turn").tolist() == pytest.approx([1, 0.9, 1, 1, 0])


@pytest.mark.parametrize(("discount", "first"), [("token", -1.5561), ("turn", -1.9)])
def test_the_discount_decides_what_the_first_token_is_worth(discount, first):  # T1
    config = ILQLConfig(gamma=0.9, polyak=1.0, discount=discount, tau=0.5)
    algorithm = tabular(config)
    descend(algorithm, one_batch(game((0, [1, 2], -1), (5, [3, 4, 6], -1), rule=ALL)), steps=300)
    assert q_of(algorithm)[0, 1].item() == pytest.approx(first, abs=1e-3)


def test_a_turn_backup_gives_every_token_what_the_turn_earns_and_the_value_of_the_next():
    v = [0, 0, 0, 0, 0, 10.0, 0, 0.5]
    algorithm = tabular(ILQLConfig(gamma=0.9, backup="turn", discount="turn"), v=v)
    batch = one_batch(game((0, [1, 2], -1), (5, [3, 4, 6], -2), terminated=False))
    next_v = torch.tensor(v)[batch.input_ids.flatten()[batch.next_state_idx]]
    found = algorithm._backup(batch, next_v)
    assert found.tolist() == pytest.approx([8.0, 8.0, -1.55, -1.55, -1.55])


def test_cql_pushes_down_what_was_not_done():
    plain, pushed = (tabular(ILQLConfig(polyak=1.0, cql_weight=w)) for w in (0.0, 0.1))
    for algorithm in (plain, pushed):
        descend(algorithm, one_batch(game((0, [4], 1))), steps=200)
    assert q_of(plain)[0, 5].item() == 0.0
    assert q_of(pushed)[0, 5].item() < -0.3
    assert q_of(pushed)[0, 4].item() > 1.0


# --- The packed loss with networks (T16).


def learner(seed=0, **config):
    """ILQL whose heads and targets are far from their start."""
    torch.manual_seed(seed)
    algorithm = ILQL(ILQLConfig(**config), tiny_language_model(DIALOGUE_TEXTS))
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return algorithm


def encoded(algorithm, episodes=DIALOGUES, rule=ALL):
    return [encode_episode(e, algorithm.policy().codec, rule) for e in episodes]


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=2e-6, rtol=1e-4)


def plain_gradients(algorithm, tokens):
    """Each episode by itself, Q and target Q of all tokens in all positions, gathered afterwards."""
    algorithm.zero_grad(set_to_none=True)
    config, values, total = algorithm.config, algorithm.online_values, torch.zeros(())
    count = sum(int(t.is_action.sum()) for t in tokens)
    for episode in tokens:
        ids = torch.from_numpy(episode.ids).long()
        hidden = values.trunk(input_ids=ids[None]).last_hidden_state[0]
        with torch.no_grad():
            frozen = algorithm.target_trunk(input_ids=ids[None]).last_hidden_state[0]
            target_q = torch.stack([h.all(frozen) for h in algorithm.target_q]).amin(0)
        q, v = [h.all(hidden) for h in values.q], values.v(hidden)
        spots = [t for t in range(len(ids)) if episode.is_action[t]]
        for t, following in zip(spots, [*(s - 1 for s in spots[1:]), None], strict=True):
            y = float(episode.reward[t])
            if following is not None:
                y = y + config.gamma * v[following].item()
            elif not episode.terminated:
                y = y + config.gamma * v[-1].item()
            aim = target_q[t - 1, ids[t]]
            weight = config.tau if aim >= v[t - 1] else 1 - config.tau
            part = 0.5 * weight * (v[t - 1] - aim) ** 2
            for head in q:
                entropy = F.cross_entropy(head[t - 1][None], ids[t][None])
                part = part + 0.5 * (head[t - 1, ids[t]] - y) ** 2 + config.cql_weight * entropy
            total = total + part / count
    total.backward()
    return total.item(), {n: p.grad.clone() for n, p in algorithm.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "config", [{"cql_weight": 0.3, "tau": 0.8, "lse_chunk": 2}, {"cql_weight": 0.3, "tie_heads": True}]
)
def test_the_loss_and_its_gradient_equal_the_plain_formulation(config):
    algorithm = learner(**config)
    tokens = encoded(algorithm)
    assert_same(gradients(algorithm, pack(tokens, 1000)), plain_gradients(algorithm, tokens))


@pytest.mark.parametrize("backup", BACKUPS)
def test_the_loss_does_not_depend_on_order_or_micro_batches(backup):
    algorithm = learner(cql_weight=0.1, **BACKUPS[backup])
    tokens = encoded(algorithm)
    expected = gradients(algorithm, pack(tokens, 1000))
    split = pack(tokens[::-1], 30)
    assert len(split) > 1
    assert_same(gradients(algorithm, split), expected)


def test_one_step_losses_do_not_depend_on_where_an_episode_is_cut():
    algorithm = learner(cql_weight=0.1)
    tokens = encoded(algorithm, rule=LATEST)
    expected = gradients(algorithm, pack(tokens, 1000))
    cut = pack(tokens, 7)
    assert sum(int(b.chain_end.sum()) for b in cut) > len(tokens)
    assert_same(gradients(algorithm, cut), expected)


def test_only_states_in_which_the_agent_acts_get_a_gradient():
    algorithm = learner(cql_weight=0.1)
    batch = one_batch(*encoded(algorithm))
    kept = []

    def keep(_module, _inputs, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    algorithm.online_values.trunk.register_forward_hook(keep)
    algorithm(batch).value.backward()
    gradient = kept[0].grad.reshape(-1, kept[0].shape[-1])
    at_actions = torch.zeros(len(gradient), dtype=torch.bool)
    at_actions[batch.state_idx] = True
    assert bool((gradient[~at_actions] == 0).all())
    assert bool((gradient[at_actions] != 0).any(-1).all())


def test_what_the_environment_says_changes_values_but_not_what_is_learnt_from():
    algorithm = learner()
    changed = [
        episode_of(*(("no\n" if s.text == "again\n" else s.text, s.is_action, s.reward) for s in e.segments))
        for e in DIALOGUES[:1]
    ]
    before, after = (one_batch(*encoded(algorithm, e)) for e in (DIALOGUES[:1], changed))
    shift = after.input_ids.shape[1] - before.input_ids.shape[1]
    assert (after.state_idx - before.state_idx).unique().tolist() in ([0], [0, shift], [shift, 0])
    assert after.action_tok.tolist() == before.action_tok.tolist()
    assert after.reward.tolist() == before.reward.tolist()
    assert algorithm(before).metrics["v/mean"] != algorithm(after).metrics["v/mean"]


@pytest.mark.parametrize(
    "config", [{}, {"cql_weight": 0.1}, {"tie_heads": True}, *list(BACKUPS.values())[1:]]
)
def test_a_batch_without_actions_has_the_loss_zero_and_touches_every_parameter(config):
    algorithm = learner(**config)
    loss = algorithm(empty_batch())
    loss.value.backward()
    assert loss.value.item() == 0.0
    assert all(m.item() == 0.0 for m in loss.metrics.values())
    for name, parameter in algorithm.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool((parameter.grad == 0).all())


# --- What is trained and what is not.


def test_values_start_at_the_constant_they_are_given():
    algorithm = ILQL(ILQLConfig(initial_value=-4.4), tiny_language_model(DIALOGUE_TEXTS))
    metrics = algorithm(one_batch(*encoded(algorithm))).metrics
    assert metrics["q/mean"].item() == pytest.approx(-4.4, abs=1e-5)
    assert metrics["v/mean"].item() == pytest.approx(-4.4, abs=1e-5)


def test_values_start_from_the_clones_trunk_or_from_one_of_their_own():
    start = tiny_language_model(DIALOGUE_TEXTS)
    trunks = []
    for how in ("clone", "fresh", "fresh"):
        torch.manual_seed(5)
        algorithm = ILQL(ILQLConfig(trunk_start=how), start)
        trunks.append(algorithm.online_values.trunk.state_dict())
        for name, value in algorithm.target_trunk.state_dict().items():
            assert torch.equal(value, trunks[-1][name])
    clone, fresh, again = (t["wte.weight"] for t in trunks)
    assert torch.equal(clone, start.trunk.wte.weight)
    assert not torch.equal(fresh, clone)
    assert torch.equal(fresh, again)
    assert fresh.std().item() == pytest.approx(clone.std().item(), rel=0.1)


def test_targets_follow_by_the_polyak_rate_and_the_behaviour_policy_stays():
    algorithm = learner(polyak=0.25)
    start = {n: v.clone() for n, v in algorithm.policy().lm.state_dict().items()}
    pairs = [
        *zip(algorithm.target_trunk.parameters(), algorithm.online_values.trunk.parameters(), strict=True),
        *zip(algorithm.target_q.parameters(), algorithm.online_values.q.parameters(), strict=True),
    ]
    expected = [0.75 * target + 0.25 * online for target, online in pairs]
    algorithm.after_step()
    for (target, _), value in zip(pairs, expected, strict=True):
        torch.testing.assert_close(target, value)
    fit(algorithm, [one_batch(*encoded(algorithm))], steps=2, lr=0.1)
    for name, value in algorithm.policy().lm.state_dict().items():
        assert torch.equal(value, start[name])


def test_the_targets_value_is_backed_up_where_it_is_asked_for():
    """The online V of the next state has moved to 5, its copy half of the way."""
    algorithm = tabular(ILQLConfig(gamma=1.0, polyak=0.5, next_value="target"))
    with torch.no_grad():
        algorithm.online_values.v.net.weight[0, 1] = 5.0
    batch = one_batch(game((0, [4], -1), (1, [5], 0)))
    assert algorithm(batch).metrics["target/mean"].item() == pytest.approx(-0.5)
    algorithm.after_step()
    assert algorithm(batch).metrics["target/mean"].item() == pytest.approx((-1 + 2.5) / 2)
    online = tabular(ILQLConfig(gamma=1.0), v=[0, 5, 0, 0, 0, 0, 0, 0])
    assert online(batch).metrics["target/mean"].item() == pytest.approx((-1 + 5) / 2)


def test_targets_and_tied_matrices_are_not_trained():
    names = {n for n, p in learner(tie_heads=True).named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in names} == {"online_values"}
    assert not any(n.endswith(("q.0.weight", "q.1.weight")) for n in names)
    assert any(n.endswith("q.0.weight") for n in dict(learner().named_parameters()))


@pytest.mark.parametrize(
    "wrong", [{"tau": 0.0}, {"tau": 1.0}, {"gamma": 0.0}, {"gamma": 1.1}, {"polyak": 0.0}, {"ta": 0.5}]
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        ILQLConfig(**wrong)


# --- It solves small problems.


@pytest.mark.parametrize(
    "config",
    [
        {"discount": "turn", "backup": "turn", "gamma": 1.0},
        {"tie_heads": True, "gamma": 0.99},
        {"cql_weight": 0.001, "initial_value": -0.5},
        {"backup": "n-step", "n_step": 2, "gamma": 1.0},
    ],
    ids=["turns", "tied heads", "cql", "n-step"],
)
@pytest.mark.slow
def test_a_network_learns_to_do_what_no_episode_did(config):  # T4
    start = tiny_language_model([s.text for e in SEEN for s in e.segments])
    rule = context_rule(STITCH, start.max_tokens)
    batches = pack([encode_episode(e, start.codec, rule) for e in SEEN], 1000)
    fit(BC(BCConfig(), start), batches, steps=200, lr=1e-2)
    algorithm = ILQL(ILQLConfig(**{"tau": 0.9, "polyak": 0.5, **config}), start)
    fit(algorithm, batches, steps=600, lr=3e-3)
    requests = requests_of(100)
    cloned = returns(STITCH, Stitch, BC(BCConfig(), start).policy(), requests)
    assert np.mean(cloned) < 0.6
    steered = returns(STITCH, Stitch, algorithm.policy(), requests, beta=32.0, min_p=0.1)
    assert np.mean(steered) > 0.95
    assert returns(STITCH, Stitch, algorithm.policy(), requests[:1], mode="greedy", beta=32.0, min_p=0.1) == [
        1.0
    ]


@pytest.mark.slow
def test_a_three_by_three_maze_is_solved_from_random_walks():
    """The shortest ways earn -1.29 on average, the random walks of the data about -30."""
    spec, layout = get_task("maze-fo"), {"layout": ("000", "010", "000"), "goal": (2, 2)}

    def make_env():
        return MazeEnv(**layout)

    env = make_env()
    walks = [spec.play(env, spec.baseline("random"), seed) for seed in range(14)]
    texts = sorted({s.text for walk in walks for s in walk.segments})
    start = tiny_language_model(texts, vocab=420, width=64)
    rule = context_rule(spec, start.max_tokens)
    batches = pack([encode_episode(w, start.codec, rule) for w in walks], 8192)
    fit(BC(BCConfig(observation_weight=1.0), start), batches, steps=200, lr=5e-3)
    options = {"tau": 0.9, "gamma": 0.9, "discount": "turn", "backup": "turn", "polyak": 0.2}
    algorithm = ILQL(ILQLConfig(**options, initial_value=-3.0), start)
    fit(algorithm, batches, steps=450, lr=5e-3)
    requests = requests_of(5 * env.num_tasks, env.num_tasks)
    cloned = returns(spec, make_env, BC(BCConfig(), start).policy(), requests)
    assert np.mean(cloned) < -15
    assert np.mean(returns(spec, make_env, algorithm.policy(), requests, beta=16.0, min_p=0.1)) > -2.0
    greedy = returns(spec, make_env, algorithm.policy(), requests, mode="greedy", beta=16.0, min_p=0.1)
    assert np.mean(greedy) > -2.0
