"""The DPO loss written from the paper's equation, for tests to compare with (arXiv 2305.18290, equation 7)."""

import math


def dpo_loss(
    beta: float, chosen: list[float], rejected: list[float], ref_chosen: list[float], ref_rejected: list[float]
) -> float:
    """-E[log sigma(beta log(pi(y_w|x) / pi_ref(y_w|x)) - beta log(pi(y_l|x) / pi_ref(y_l|x)))].

    Args:
        beta: The paper's beta.
        chosen: log pi(y_w | x) of each pair, in nats; the others likewise.
    """
    total = 0.0
    for w, l, ref_w, ref_l in zip(chosen, rejected, ref_chosen, ref_rejected, strict=True):  # noqa: E741 (the paper's l)
        logit = beta * (w - ref_w) - beta * (l - ref_l)
        total += math.log1p(math.exp(-logit))
    return total / len(chosen)


def sequence_logp(model, prompt_ids: list[int], completion_ids: list[int]) -> float:
    """log pi(y | x) = sum_t log pi(y_t | x, y_<t), one token at a time from the model's plain logits."""
    import torch

    ids = prompt_ids + completion_ids
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    total = 0.0
    for position in range(len(prompt_ids), len(ids)):
        row = logits[position - 1]
        total += float(row[ids[position]] - torch.logsumexp(row, dim=0))
    return total
