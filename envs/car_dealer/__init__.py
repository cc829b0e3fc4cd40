"""Car dealer: sell a car at the best price to a buyer whose wish and budget are hidden.

Source: LMRL-Gym, section 4 and appendix C.8. Importing this package reads no data file.
"""

from __future__ import annotations

from envs.car_dealer.cars import BRANDS, FEATURES, TYPES
from envs.registry import PaperRow, Scale, TaskSpec, register

_RULES = f"""\
You sell cars and speak first (the first observation is only "Start"). The buyer wants a certain car and
has a budget; both are hidden. An action is one line of what you say, any text: greet, ask for the brand,
the type, the features or the budget, offer one car ("Here is a Lexus sedan with a sunroof."), name one
price for it ("I can let you have it for $32,000."), come down with the price, or take the buyer's offer
("It's a deal."). Say one such thing at a time; several cars or several prices in one line are not
understood.
Brands: {", ".join(BRANDS)}.
Types: {", ".join(TYPES)}.
Features: {", ".join(FEATURES)}.
Another brand or type than the wished one is not bought. A buyer with whom nothing new happens for some
turns leaves. The game ends when the buyer buys or leaves, at the latest after 25 lines of yours. You are
paid at the end only: for a sale by the price (the higher, the better, against the buyer's budget and the
list price), and without a sale nothing, or less than nothing where the buyer could have paid more than
the list price."""

CAR_DEALER = register(
    TaskSpec(
        id="car-dealer",
        family="car_dealer",
        description=(
            "Sell a car to a buyer with a hidden wish, budget and temper. The return is the price "
            "against budget and list price; the paper's results are thousands of dollars "
            "(reward=revenue)."
        ),
        entry="envs.car_dealer.env:CarDealer",
        instructions=_RULES,
        observation="dialogue",
        horizon=25,
        window=None,
        scale=Scale(minimum=0.0, average=None, maximum=None),
        max_action_tokens=96,
        baselines={
            "random": "envs.car_dealer.behaviour:RandomSeller",
            "behaviour": "envs.car_dealer.behaviour:BehaviourSeller",
            "expert": "envs.car_dealer.behaviour:BestSeller",
        },
        best_baseline="expert",
        data_episodes=19_000,
        table1={
            "mean_length": 16.5,
            "std_length": 3.61,
            "success_rate": 0.53,
            "mean_return": 0.562,
            "std_return": 0.422,
        },
        paper={
            "bc": PaperRow(44.5, 44.5),
            "filtered-bc": PaperRow(54.8, 54.8),
            "mc": PaperRow(57.2, 57.2),
            "ilql": PaperRow(46.3, 46.3),
            "ppo": PaperRow(50.5, 50.5),
            "online-filtered-bc": PaperRow(None, 40.4),
            "gpt-4": PaperRow(None, 53.5),
        },
        reader_entry="envs.car_dealer.published:read_published",
        other_side="envs.car_dealer.answering:SIDE",
        quick_episodes=100,
        paper_episodes=500,
    )
)
