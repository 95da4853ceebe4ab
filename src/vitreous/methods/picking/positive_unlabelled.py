"""What a classifier should minimise that is shown some particles, and otherwise pixels of which nobody knows.

Both need the prior: the share of unlabelled pixels that are particles. Without it, calling every unlabelled pixel
background is a perfect answer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def ge_binomial(
    positive: Float[Tensor, "p"], unlabelled: Float[Tensor, "u"], prior: float, weight: float = 1.0
) -> Float[Tensor, ""]:
    """Cross-entropy of the labelled, and that of how many of the unlabelled should be particles with how many are.

    positive, unlabelled: log-odds. The number of particles in a minibatch of u is binomial (u, prior); what the
    classifier says of it, a sum of independent draws, is taken as normal. Bepler et al. (2019) Nat. Methods 16, 1153
    (GE-binomial), after Mann and McCallum's generalised expectation criteria.
    """
    count = unlabelled.shape[0]
    share = torch.sigmoid(unlabelled)
    expected, variance = share.sum(), (share * (1.0 - share)).sum()
    k = torch.arange(count + 1, device=unlabelled.device, dtype=unlabelled.dtype)
    said = torch.log_softmax(-((k - expected) ** 2) / (2.0 * variance + 1e-6), 0)
    binomial = torch.distributions.Binomial(count, torch.tensor(prior, device=k.device, dtype=k.dtype))
    wanted = binomial.log_prob(k).exp()
    return softplus(-positive).mean() - weight * (wanted * said).sum()


def nn_pu(positive: Float[Tensor, "p"], unlabelled: Float[Tensor, "u"], prior: float) -> Float[Tensor, ""]:
    """The non-negative estimate of the risk of a classifier, with the logistic loss.

    The unlabelled count as background, less the particles among them, as the labelled ones tell; a mean below zero is
    fitting of chance: the step then goes the other way. Kiryo et al. (2017) NeurIPS, algorithm 1.
    """
    as_particle = prior * softplus(-positive).mean()
    as_background = softplus(unlabelled).mean() - prior * softplus(positive).mean()
    return as_particle + as_background if bool(as_background >= 0) else -as_background


OBJECTIVES = {"ge-binomial": ge_binomial, "nnpu": nn_pu}
