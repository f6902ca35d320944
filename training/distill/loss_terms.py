"""Named terms of a loss."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class LossTerms:
    """Base of the data classes whose fields are weighted, differentiable scalar terms."""

    @property
    def total(self) -> torch.Tensor:
        """Sum of the terms."""
        return torch.stack(list(self.as_dict().values())).sum()

    def as_dict(self) -> dict[str, torch.Tensor]:
        """The terms by name, for logs."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
