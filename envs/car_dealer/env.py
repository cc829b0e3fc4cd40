"""Car dealer: sell a car to a buyer whose wish, budget and temper are hidden.

The agent is the seller and speaks first. It may ask for the wish, show cars and name prices; the
buyer ends the talk by buying or leaving, at the latest after 25 lines from each. The only reward comes
at the end. Source: LMRL-Gym, section 4 and appendix C.8; there the buyer was a language model, here it
is `simulator.RuleBuyer` or whatever is given as `buyer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from envs.car_dealer.buyers import NUM_BUYERS, NUM_TRAIN, all_buyers
from envs.car_dealer.deal import REWARD_MODES, RewardMode, best_return, reward_of
from envs.car_dealer.simulator import BuyerSimulator, RuleBuyer
from envs.core import Outcome, State, TextEnv

Split = Literal["train", "held-out"]
_SPLITS: Final = {"train": (0, NUM_TRAIN), "held-out": (NUM_TRAIN, NUM_BUYERS)}
OPENING: Final = "Start\n"
MAX_TURNS: Final = 25
"""Lines of the seller: 50 in all."""


class CarDealer(TextEnv):
    """The seller's side of the conversation; a task is a buyer.

    Args:
        reward: "fancy", the price against budget and list price, or "revenue", in thousands.
        split: the buyers that `reset` draws from. A `task_id` selects any buyer, of either split.
        buyer: who plays the buyers; by default a `RuleBuyer`.

    Raises ValueError for another reward or split.
    """

    num_tasks = NUM_BUYERS

    def __init__(
        self,
        reward: RewardMode = "fancy",
        split: Split = "train",
        buyer: BuyerSimulator | None = None,
    ) -> None:
        super().__init__()
        if reward not in REWARD_MODES:
            raise ValueError(f"reward: {reward!r} is not one of {', '.join(REWARD_MODES)}")
        if split not in _SPLITS:
            raise ValueError(f"split: {split!r} is not one of {', '.join(_SPLITS)}")
        self._mode = reward
        self.split_tasks = self._drawn = range(*_SPLITS[split])
        self._simulator = RuleBuyer() if buyer is None else buyer
        self.simulator = self._simulator.kind

    def privileged(self) -> dict[str, Any]:
        """The buyer's record and reasons, and the best return there is with this buyer."""
        best = best_return(all_buyers()[self._task_id], self._mode)
        return {**self._simulator.privileged(), "best_return": best}

    def _requested_task(self, options: Mapping[str, Any] | None) -> int:
        task_id = super()._requested_task(options)
        if task_id is not None:
            return task_id
        return self._drawn[int(self.np_random.random() * len(self._drawn))]

    def _reset(self, task_id: int) -> str:
        self._simulator.begin(all_buyers()[task_id])
        return OPENING

    def _step(self, action: str) -> Outcome:
        reply = self._simulator.reply(action, self.np_random, last=self._turn >= MAX_TURNS)
        text, decision = f"{reply.text}\n", reply.decision
        if decision is None:
            return Outcome(text, 0.0, valid=reply.valid)
        reward = reward_of(decision, all_buyers()[self._task_id].budget, self._mode)
        return Outcome(text, reward, terminated=True, success=decision.accepted, valid=reply.valid)

    def _get_state(self) -> State:
        return self._simulator.get_state()

    def _set_state(self, state: State) -> None:
        self._simulator.begin(all_buyers()[self._task_id])
        self._simulator.set_state(state)
