"""The optional packages of the extra ``train``: present, or one sentence that says what to do."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import Any

from planner.errors import MissingExtraError

_INSTALL = 'install it with: pip install "collapse-planner[train]"'


def require_torch() -> None:
    """Check that PyTorch is installed, without importing it.

    Raises:
        MissingExtraError: If it is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(f"training needs PyTorch, which is not installed; {_INSTALL}")


def require_tokenizers() -> Any:
    """Return the module ``tokenizers``.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtraError(
            f"BPE needs the package tokenizers, which is not installed; {_INSTALL}"
        )
    return import_module("tokenizers")
