"""Forward hooks on a torch model by module path: resolved first, registered together, always removed.

    with hooked(model, {"encoder.layers.3": lambda x: x * 0.5}):
        model.generate(...)

A function gets the module's output tensor and returns its replacement, or `None` to leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from steer_asr.errors import HookPointError, unknown_name

if TYPE_CHECKING:
    import torch

    Edit = Callable[[torch.Tensor], "torch.Tensor | None"]

OUTPUT_HOOK_POINT = "encoder.output"
"""Our name for the encoder's final output (after its last LayerNorm), the same on every model."""


@contextmanager
def hooked(model: torch.nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Runs each function of `edits` on the output of the module named by its key while the block lasts.

    Raises `HookPointError`, before anything is registered, when a module does not exist. Outputs may be tensors
    (transformers 5) or tuples whose first item is the tensor (transformers 4); both are handled.
    """
    modules = {point: resolve(model, point) for point in edits}
    handles: list[Any] = []
    try:
        for point, edit in edits.items():
            # prepend: hidden-state capture of transformers is itself a hook, and must see what we return.
            handles.append(modules[point].register_forward_hook(_as_hook(edit), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def resolve(model: torch.nn.Module, point: str) -> torch.nn.Module:
    """The module at `point`, a path such as "encoder.layers.3" or "encoder.output"; raises `HookPointError`."""
    path = "encoder.layer_norm" if point == OUTPUT_HOOK_POINT else point
    modules = dict(model.named_modules())
    for prefix in ("", "model."):
        if prefix + path in modules:
            return modules[prefix + path]
    known = [name for name in modules if name.endswith("layer_norm") or name.rpartition(".")[2].isdigit()]
    raise HookPointError(unknown_name("hook point", point, [OUTPUT_HOOK_POINT, *known]))


def _as_hook(edit: Edit) -> Callable[..., Any]:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return edit(output)
        replaced = edit(output[0])
        return None if replaced is None else (replaced, *output[1:])

    return hook
