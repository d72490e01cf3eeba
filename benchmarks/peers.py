"""The loaders that people stream with today, fed with the same samples, for `benchmarks.stream`.

Each keeps raw pixels (decoding would only slow it down), shuffles as fully as it offers, and reads with two processes
of a torch DataLoader that live on between epochs. MosaicML MDS: any sample next (`naive`). LitData: shards in random
order, samples shuffled within. WebDataset: the same, through a buffer of 128 samples, pixels taken without a copy from
the bytes of a tar's member.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

SHARD_BYTES = 1 << 26
SHUFFLE_BUFFER = 128
WORKERS = 2
SEED = 0

Arrays = dict[str, npt.NDArray[Any]]
Batches = Iterable[dict[str, torch.Tensor]]
Peer = Callable[[Path, Iterator[Arrays], int], Batches]


def open_peers(
    folder: Path, samples: Callable[[], Iterator[Arrays]], batch: int
) -> tuple[dict[str, Batches], list[str]]:
    """Write `samples` for each peer below `folder` and open them; those that are not installed, and why, in words."""
    warnings.filterwarnings("ignore", message="The given (buffer|NumPy array) is not writable")
    stand_in_for_torchvision()
    opened, missing = {}, []
    for name, (module, peer) in PEERS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{name} is left out: {error}")
            continue
        place = folder / module
        place.mkdir()
        opened[name] = peer(place, samples(), batch)
    return opened, missing


def loader(dataset: Any, batch: int, kind: type[DataLoader[Any]] = DataLoader) -> Batches:
    """As every peer recommends it: processes that live on."""
    return kind(dataset, batch_size=batch, num_workers=WORKERS, persistent_workers=True)


def mosaic(folder: Path, samples: Iterator[Arrays], batch: int) -> Batches:
    import streaming

    first = next(samples)
    columns = {name: f"ndarray:{array.dtype}:{','.join(map(str, array.shape))}" for name, array in first.items()}
    with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=SHARD_BYTES) as writer:
        writer.write(first)
        for arrays in samples:
            writer.write(arrays)
    dataset = streaming.StreamingDataset(
        local=str(folder), batch_size=batch, shuffle=True, shuffle_algo="naive", shuffle_seed=SEED
    )
    return loader(dataset, batch)


def lit(folder: Path, samples: Iterator[Arrays], batch: int) -> Batches:
    import litdata
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes=SHARD_BYTES)
    for number, arrays in enumerate(samples):
        cache[number] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    cache.done()
    cache.merge()
    return loader(litdata.StreamingDataset(str(folder), shuffle=True, seed=SEED), batch, litdata.StreamingDataLoader)


def web(folder: Path, samples: Iterator[Arrays], batch: int) -> Batches:
    import webdataset

    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {}
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxsize=SHARD_BYTES, verbose=0) as writer:
        for number, arrays in enumerate(samples):
            kinds = {name: (array.dtype, array.shape) for name, array in arrays.items()}
            writer.write({"__key__": f"{number:09d}"} | {name: array.tobytes() for name, array in arrays.items()})

    def unpack(sample: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(np.frombuffer(sample[name], dtype).reshape(shape))
            for name, (dtype, shape) in kinds.items()
        }

    shards = sorted(map(str, folder.glob("*.tar")))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=SEED, empty_check=False)
        .shuffle(SHUFFLE_BUFFER)
        .map(unpack)
    )
    return loader(dataset, batch)


def stand_in_for_torchvision() -> None:
    """MDS imports torchvision for data sets of photographs, and needs it for nothing else."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):  # not installed, or built for another torch
        missing = {".datasets": "VisionDataset", ".transforms": "Compose", ".transforms.functional": "to_tensor"}
        for name, attribute in ({"": "version"} | missing).items():
            module = ModuleType(f"torchvision{name}")
            module.__spec__ = ModuleSpec(module.__name__, None)
            setattr(module, attribute, object)
            sys.modules[module.__name__] = module


PEERS: dict[str, tuple[str, Peer]] = {
    "MosaicML MDS": ("streaming", mosaic),
    "LitData": ("litdata", lit),
    "WebDataset": ("webdataset", web),
}
