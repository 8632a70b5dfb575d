import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy import Toy

from dreamwalk.data.writing import write_clips


@pytest.fixture(scope="session", autouse=True)
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two threads unless OMP_NUM_THREADS says otherwise, and a cache folder of the tests' own."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def double() -> Iterator[None]:
    """Modules and tensors made in a test are float64, in which all processors agree to nine digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 clips of 12 frames, 32x32."""
    return write_clips(Toy(), 24, tmp_path_factory.mktemp("data") / "toy")
