"""What the tests of rendering share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with something to learn, as `planner prepare` makes them."""
    import numpy as np

    folder: Path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    tokens = (np.cumsum(rng.integers(0, 3, 20_000)) % 97).astype("<u2")
    tokens.tofile(folder / "tokens.bin")
    about = {"schema": "planner.data/1", "dtype": "uint16", "vocab_size": 97, "train": 19_000}
    about |= {"validation": 1_000, "tokenizer": "byte", "separator": 0, "documents": 1}
    about |= {"source": "letters", "licence": None, "digest": "sha256:0"}
    (folder / "data.json").write_text(json.dumps(about))
    return folder
