"""Behaviour cloning: the likelihood of the actions in the data.

    L(theta) = - E[log pi_theta(a_t | s_t)]              over action tokens
               - w * (1 / N) sum log p_theta(o_t | ...)   over environment tokens, N action tokens

Source: LMRL-Gym section 5 (BC). With w = 0, the default, environment tokens are read and never learnt.
With w > 0 the model also predicts what it will be told (the reference's `non_action_weight`): for a
small model without pre-training this is what makes it tell one state from another, which the values
learnt from it later depend on.
"""

from __future__ import annotations

import torch
from pydantic import Field

from algos.base import Algorithm, AlgorithmConfig, Loss, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import TokenLogProb, hidden_states
from algos.policy import LanguagePolicy


class BCConfig(AlgorithmConfig):
    observation_weight: float = Field(0.0, ge=0, description="w: weight of predicting environment tokens")


@register_algorithm
class BC(Algorithm):
    """Maximum likelihood on action tokens."""

    id = "bc"
    title = "Behaviour cloning"
    source = "LMRL-Gym section 5"
    Config = BCConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, BCConfig)
        self.config = config
        self.lm = language_model.model
        self.log_prob = TokenLogProb(self.lm.get_output_embeddings())

    def forward(self, batch: PackedBatch) -> Loss:
        hidden = hidden_states(self.lm.base_model, batch.input_ids, batch.mask)
        said = self.log_prob(hidden[batch.state_idx], batch.action_tok, self.temperature)
        loss = -said.sum() / batch.denominator
        metrics = {"loss": loss.detach()}
        if self.config.observation_weight:
            observed = self._observation_loss(hidden, batch)
            loss = loss + self.config.observation_weight * observed
            metrics["loss/observation"] = observed.detach()
        return Loss(loss, metrics)

    def _observation_loss(self, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """Each different (state, token) once, times how often it occurs."""
        vocab = self.lm.config.vocab_size
        pairs = batch.observed_idx * vocab + batch.observed_tok
        pairs, counts = torch.unique(pairs, return_counts=True)
        logp = self.log_prob(hidden[pairs // vocab], pairs % vocab)
        loss: torch.Tensor = -(counts * logp).sum() / batch.denominator
        return loss

    def policy(self) -> LanguagePolicy:
        return LanguagePolicy(self._start[0])
