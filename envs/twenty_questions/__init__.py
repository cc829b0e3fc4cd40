"""Twenty Questions: 158 everyday objects, answered from a hand-written table."""

from envs.registry import PaperRow, Scale, TaskSpec, register

_RULES = """\
The other one thinks of an everyday object; find out which, with as few questions as possible and at most
twenty. An action is one short question that can be answered yes or no, e.g. "Is it an animal?", "Can you
eat it?", "Is it bigger than a dog?". Ask one thing at a time and not in the negative. The answer is
"Yes.", "No.", "I'm not sure." or, where the question is not understood, "I can't answer that.". To guess,
name the object in a question that holds nothing else, e.g. "Is it a cat?": if that is the object you have
won. Each question costs 1, whatever the answer; the one that names the object costs nothing. Legal
actions are all questions; use the twentieth for a guess."""

register(
    TaskSpec(
        id="twenty-questions",
        family="twenty_questions",
        description="find one of 158 everyday objects with at most 20 yes/no questions",
        entry="envs.twenty_questions.env:TwentyQuestionsEnv",
        instructions=_RULES,
        observation="dialogue",
        horizon=20,
        window=None,
        scale=Scale(minimum=-20.0, average=-17.3, maximum=-12.6),
        max_action_tokens=48,
        baselines={
            "random": "envs.twenty_questions.behaviour:Random",
            "behaviour": "envs.twenty_questions.behaviour:Behaviour",
            "expert": "envs.twenty_questions.behaviour:Expert",
        },
        best_baseline="expert",
        data_episodes=100_000,
        table1={
            "mean_length": 14.9,
            "std_length": 4.38,
            "success_rate": 0.31,
            "mean_return": -17.3,
            "std_return": 2.56,
        },
        paper={
            "bc": PaperRow(-16.0, 57.1),
            "filtered-bc": PaperRow(-14.6, 77.1),
            "mc": PaperRow(-13.9, 87.1),
            "ilql": PaperRow(-14.2, 82.9),
            "ppo": PaperRow(-14.9, 72.9),
            "online-filtered-bc": PaperRow(-16.8, 55.2),
            "gpt-4": PaperRow(-13.0, 95.7),
        },
        reader_entry="envs.twenty_questions.published:read_published",
        other_side="envs.twenty_questions.answering:SIDE",
        eval_tasks=tuple(range(158)),
        quick_episodes=158,
        paper_episodes=790,
    )
)
