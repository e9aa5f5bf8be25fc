"""What to do with a feature's activation: `scale`, `clamp`, `cap` or `add`. Pure functions on arrays.

    edits = [Edit(feature=17, op="scale", value=-1.5), Edit(feature=40, op="clamp", value=0.0)]
    z_edited = EditPlan.build(edits, feature_ids)(z)

| op | z' | a silent feature (z = 0) |
| --- | --- | --- |
| scale | value * z | stays silent |
| clamp | value | fires at `value` |
| cap | min(z, value) | stays silent |
| add | z + value | fires at `value` |

A feature has one edit, or a `scale` and an `add`: then z' = scale * z + add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from steer_asr.errors import PackError

Op = Literal["scale", "clamp", "cap", "add"]


@dataclass(frozen=True)
class Edit:
    """One edit of one feature, named by its id in the full dictionary."""

    feature: int
    op: Op
    value: float

    def __post_init__(self) -> None:
        if self.op not in get_args(Op):
            raise PackError(
                f"feature {self.feature}: unknown edit {self.op!r}; known ones are {', '.join(get_args(Op))}"
            )
        if not math.isfinite(self.value):
            raise PackError(f"feature {self.feature}: the value of {self.op!r} is not finite")


@dataclass(frozen=True, eq=False)
class EditPlan:
    """All edits of a pack as four arrays of [n_features], so that a whole window is edited at once."""

    scale: np.ndarray
    add: np.ndarray
    cap: np.ndarray
    """Infinity where there is none."""
    clamp: np.ndarray
    """NaN where there is none."""

    @classmethod
    def build(cls, edits: Sequence[Edit], feature_ids: Sequence[int]) -> EditPlan:
        """Aligns `edits` with the columns of z.

        Raises `PackError` for a feature that the pack's SAE lacks, for two edits of one feature that do not go
        together, and for no edit.
        """
        n = len(feature_ids)
        plan = cls(np.ones(n, "f4"), np.zeros(n, "f4"), np.full(n, np.inf, "f4"), np.full(n, np.nan, "f4"))
        column = {feature: i for i, feature in enumerate(feature_ids)}
        seen: dict[int, set[str]] = {}
        for edit in edits:
            if edit.feature not in column:
                raise PackError(
                    f"the SAE has no feature {edit.feature}; its {n} features are "
                    f"{', '.join(map(str, sorted(column)[:8]))}{', ...' if n > 8 else ''}"
                )
            ops = seen.setdefault(edit.feature, set())
            if ops and (edit.op in ops or ops | {edit.op} != {"scale", "add"}):
                raise PackError(f"feature {edit.feature} is edited twice; one edit each, or a scale and an add")
            ops.add(edit.op)
            getattr(plan, edit.op)[column[edit.feature]] = edit.value
        if not seen:
            raise PackError("there is no edit: this would steer nothing")
        return plan

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Edited activations, float32 [..., n_features]."""
        edited = np.minimum(z * self.scale + self.add, self.cap)
        return np.where(np.isnan(self.clamp), edited, self.clamp)
