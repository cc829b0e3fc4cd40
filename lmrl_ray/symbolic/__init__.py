"""Learning the maze without words: RLlib's DQN online, Q-iteration on the data set of `maze-fo`.

The baselines of LMRL-Gym's appendix H. They learn a table of Q values, not a language model, and so
pass by the learner of tokens; a run has the same folder, tracking and score as any other.
"""
