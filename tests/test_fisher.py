"""What directions in the space of the predictions send back."""

from __future__ import annotations

import torch

from pgb_core.fisher import exit_gradients
from pgb_core.likelihood import DRAWS, likelihood_of, random_signs
from tests.network import Network


def test_exit_gradients_equal_autograd_sample_by_sample(network: Network) -> None:
    model, batch = network.model, network.batches[1]
    found = exit_gradients(model, network.sublayers, [batch])
    outputs: list[torch.Tensor] = []
    hooks = [s.exit.register_forward_hook(lambda module, args, out: outputs.append(out)) for s in network.sublayers]
    token = 0
    for n in range(len(batch.indices)):
        length = int(batch.attention_mask[n].sum())
        inputs = {name: values[n : n + 1, :length] for name, values in batch.inputs.items()}
        outputs.clear()
        logits = model(**inputs).logits
        signs = random_signs(model, [batch], 1 + int(batch.indices.max()), 0, DRAWS)[:, batch.indices[n : n + 1]]
        vs = likelihood_of(model).directions(logits.detach(), signs, batch.attention_mask[n : n + 1])
        for k, v in enumerate(vs):
            expected = torch.autograd.grad(logits, outputs, grad_outputs=v, retain_graph=True)
            for mine, theirs in zip(found, expected, strict=True):
                assert torch.allclose(mine[k, token : token + length], theirs[0], rtol=1e-3, atol=1e-6)
        token += length
    for hook in hooks:
        hook.remove()
    for mine, again in zip(found[1:3], exit_gradients(model, network.sublayers, [batch], range(1, 3)), strict=True):
        assert torch.equal(mine, again)
    assert all(g.shape[1] == token for g in found)
    assert all(parameter.requires_grad for parameter in model.parameters())
