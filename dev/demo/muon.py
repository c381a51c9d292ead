"""Muon (Keller Jordan and others, 2024): momentum whose update of each matrix is made orthogonal by a Newton-Schulz iteration.

PyTorch has it too, but iterates in bfloat16, which a CPU without such instructions does a hundred times slower than float32.
"""

import torch

STEPS = 5
A, B, C = 3.4445, -4.7750, 2.0315  # the published quintic; it need not converge, only bring all singular values near 1


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrices of a stack [n, rows, columns]."""
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        s = x @ x.mT
        x = A * x + (B * s + C * s @ s) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices only. Those of one shape are iterated as one stack, which world processes share."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0, world: int = 1):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.world = world

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape: dict[tuple, list] = {}
            for p in group["params"]:
                by_shape.setdefault(tuple(p.shape), []).append(p)
            for (rows, columns), ps in by_shape.items():
                updates = []
                for p in ps:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(m, group["momentum"]))  # Nesterov's look ahead
                scale = group["lr"] * max(1, rows / columns) ** 0.5
                for p, u in zip(ps, self.shared(torch.stack(updates))):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u, alpha=-scale)

    def shared(self, stack: torch.Tensor) -> torch.Tensor:
        """orthogonal(stack), each process doing every world-th matrix of it."""
        if self.world == 1:
            return orthogonal(stack)
        mine = slice(torch.distributed.get_rank(), None, self.world)
        out = torch.zeros_like(stack)
        if len(stack[mine]):
            out[mine] = orthogonal(stack[mine])
        torch.distributed.all_reduce(out)
        return out
