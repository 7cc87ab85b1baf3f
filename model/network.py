#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A complete Mamba-2 language model in PyTorch: embedding, layers, final norm and head.

::

    tokens -> embedding -+-> norm -> layer -+-> + ... -> norm_f -> lm_head -> logits
                         +------------------+

The residual stream is float32, as weights and activations are (float64 after ``model.double()``).
"""

import torch
from torch import nn

from model.config import NetworkConfig as NetworkConfig # From here as well.
from model.reference import Mamba2Layer

# Model --------------------------------------------------------------------------------------------

class RMSNorm(nn.Module):
    """x over its root mean square, times a weight."""

    def __init__(self, size, eps):
        super().__init__()
        self.eps    = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x*(x.square().mean(-1, keepdim=True) + self.eps).rsqrt()*self.weight


class ResidualLayer(nn.Module):
    """Norm and Mamba-2 layer, whose result is added to the residual stream."""

    def __init__(self, config):
        super().__init__()
        self.norm  = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Mamba2Layer(config)


class Mamba2Network(nn.Module):
    """A Mamba-2 language model. As in a layer there is no batch dimension (``torch.vmap`` adds one), and only
    ``network(tokens, states)``, as :meth:`prefill` otherwise, has gradients.

    Parameters
    ----------
    config : :class:`NetworkConfig`.
    """
    def __init__(self, config):
        super().__init__()
        self.config    = config
        self.embedding = nn.Embedding(config.vocab_size, config.layer.d_model)
        self.layers    = nn.ModuleList(ResidualLayer(config.layer) for _ in range(config.n_layer))
        self.norm_f    = RMSNorm(config.layer.d_model, config.layer.norm_eps)
        self.lm_head   = nn.Linear(config.layer.d_model, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self):
        """Let the head's weights be the embedding's where the model is to have it so."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.embedding.weight

    def check_tokens(self, tokens):
        """Raise ValueError unless there are tokens, all of them in the vocabulary."""
        tokens = torch.as_tensor(tokens)
        if tokens.dim() != 1 or len(tokens) < 1:
            raise ValueError(f"tokens must have shape (T,) with T >= 1, have {tuple(tokens.shape)}.")
        wrong = tokens[(tokens < 0) | (tokens >= self.config.vocab_size)]
        if len(wrong):
            raise ValueError(f"token must be a number from 0 to {self.config.vocab_size - 1}, is {wrong[0].item()}.")

    def logits(self, hidden):
        """Logits (T, vocabulary) of the residual stream (T, d_model) after the last layer."""
        return self.lm_head(self.norm_f(hidden))

    def initial_state(self):
        """State before the first token: a list with a :class:`model.reference.Mamba2State` for each layer."""
        return [layer.mixer.initial_state() for layer in self.layers]

    @torch.no_grad()
    def prefill(self, tokens, states=None):
        """Run T tokens, in chunks.

        Parameters
        ----------
        tokens : (T,), T >= 1.
        states : As :meth:`initial_state` returns, left as it is; None: before the first token.

        Returns
        -------
        (logits, states) : logits (T, vocabulary), and the states after the last token.

        Raises
        ------
        ValueError : as :meth:`check_tokens`.
        """
        self.check_tokens(tokens)
        return self(torch.as_tensor(tokens, dtype=torch.long), states)

    def forward(self, tokens, states=None):
        hidden = self.embedding(tokens)
        after  = []
        for layer, state in zip(self.layers, states or self.initial_state()):
            out, state = layer.mixer(layer.norm(hidden), state)
            hidden     = hidden + out
            after.append(state)
        return self.logits(hidden), after

    @torch.no_grad()
    def step(self, token, states=None):
        """Run one token, by the recurrence. Otherwise as :meth:`prefill`, logits (vocabulary,)."""
        self.check_tokens([token])
        hidden = self.embedding.weight[token]
        after  = []
        for layer, state in zip(self.layers, states or self.initial_state()):
            out, state = layer.mixer.step(layer.norm(hidden), state)
            hidden     = hidden + out
            after.append(state)
        return self.logits(hidden), after
