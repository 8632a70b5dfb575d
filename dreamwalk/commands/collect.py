"""`dreamwalk collect`: write clips of a source into a folder, or check a folder.

The flags of a source are its own fields; torch is imported only for latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from dreamwalk.data.dl3dv import Dl3dv
from dreamwalk.data.doom_visits import DoomVisits
from dreamwalk.data.doom_walks import DoomWalks
from dreamwalk.data.folders import buckets, open_captioned
from dreamwalk.data.game_walks import GameWalks
from dreamwalk.data.posed_frames import PosedFrames
from dreamwalk.data.realestate import RealEstate
from dreamwalk.data.shards import Shards, find_faults
from dreamwalk.data.videos import VideoFolder
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.images import Fit

SOURCES = """usage: dreamwalk collect SOURCE --out DIR [flags]   (with SOURCE --help tells its flags)

  doom         walk in Doom and write what is seen
  visits       put a pillar down in Doom, leave and come back, for `evaluate --report objects`
  videos       cut your own videos, with files of actions beside them, into clips
  realestate   cut RealEstate10K, texts of cameras and frames of its videos, into clips
  dl3dv        cut DL3DV-10K, scenes with a transforms.json and pictures, into clips
  game         play any gymnasium game with random keys and write what is seen
  latents      encode a folder of captioned videos and pictures, to train on its latents
  --check DIR  compare a folder of clips with its manifest, byte by byte

  dreamwalk collect doom --level home --frames 40000 --out data/doom
  dreamwalk collect videos --folder mine --fps 12 --out data/mine
  dreamwalk collect game --id CartPole-v1 --clip-frames 8 --out data/cartpole
"""
ClipSource = TypeVar("ClipSource", DoomWalks, DoomVisits, GameWalks, VideoFolder, RealEstate, Dl3dv)


@dataclass(frozen=True)
class Collect(Generic[ClipSource]):
    """Write clips of a source."""

    source: Annotated[ClipSource, tyro.conf.arg(name="")]
    out: str
    """Folder for the clips; run the same command again to go on."""
    workers: int = 1
    """Processes, best one per core."""


@dataclass(frozen=True)
class CollectLatents:
    """Encode a folder of videos and pictures, each with a text beside it, for training on their latents."""

    out: str
    """Folder for the latents; run the same command again to go on."""
    folder: str
    """Folder with clip.mp4 and clip.txt, picture.png and picture.txt, and so on."""
    codec: str
    """Whose codec encodes: the name of shipped weights, a weight file, or a run folder."""
    size: tuple[int, int] = (256, 256)
    """Height and width of a square of about as many pixels as clips of all shapes shall have."""
    frames: int = 33
    """Frames of a clip."""
    fps: float | None = None
    """Choose so many frames a second of faster videos; all are kept if left out."""
    fit: Fit = "cut"
    """How a file fills the size of the nearest shape: cut about its middle, stretched, or between bars."""
    pictures: bool = True
    """Take pictures too, as clips of one frame."""
    at_once: int = 1
    """Clips that are encoded together."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""


def _collect_latents(asked: CollectLatents) -> None:
    """Sort the files into sizes, say what went where, and encode. UserErrors as of those that do it."""
    from dreamwalk.data.latents import cached_latents
    from dreamwalk.distributed import pick_device
    from dreamwalk.systems.autoencode import Autoencode
    from dreamwalk.systems.moviegen import Moviegen
    from dreamwalk.systems.open import load

    system = load(asked.codec)
    if not isinstance(system, Autoencode | Moviegen):
        raise UserError(f"'{asked.codec}' is of the system {system.name}: latents need a codec of videos")
    codec: Any = system.codec
    device = pick_device(asked.device)
    multiple = math.lcm(*codec.stride[1:], 16)
    lengths = dict.fromkeys([asked.frames] + [1] * asked.pictures)
    sizes = [size for n in lengths for size in buckets(asked.size, frames=n, multiple=multiple)]
    folder = open_captioned(asked.folder, sizes, fps=asked.fps, fit=asked.fit)
    print(folder.report())
    data = cached_latents(codec.to(device), folder, asked.out, at_once=asked.at_once, device=device)
    print(f"latents of {len(data)} clips in {len(data.buckets)} sizes: {asked.out}")


KINDS: dict[str, Any] = {"doom": DoomWalks, "visits": DoomVisits, "game": GameWalks, "videos": VideoFolder}
KINDS |= {"realestate": RealEstate, "dl3dv": Dl3dv}


def collect(argv: list[str]) -> None:
    """`dreamwalk collect SOURCE --out DIR ...`, or `dreamwalk collect --check DIR`."""
    if argv and argv[0] in ("-h", "--help"):
        return print(SOURCES, end="")
    if argv[:1] == ["--check"] and len(argv) == 2:
        return _check(Path(argv[1]))
    if not argv or argv[0] not in (*KINDS, "latents"):
        kinds = "|".join((*KINDS, "latents"))
        usage = f"dreamwalk collect {kinds} --out DIR, or dreamwalk collect --check DIR"
        raise UserError(f"say what to collect: {usage}")
    asked = collect_flags(argv[0], argv[1:])
    if isinstance(asked, CollectLatents):
        return _collect_latents(asked)
    if isinstance(asked.source, VideoFolder | PosedFrames):
        print(asked.source.report())
    folder = write_clips(asked.source, len(asked.source), asked.out, workers=asked.workers)
    data = Shards(folder)
    print(f"{data.frames} frames in {len(data)} clips: {folder}")


def collect_flags(kind: str, flags: list[str]) -> Any:
    """The flags of a kind of source, without what only Python can say."""
    source = KINDS.get(kind, CollectLatents)
    asked: Any = Collect[source] if kind in KINDS else source  # type: ignore[valid-type]
    prog, config = f"dreamwalk collect {kind}", (tyro.conf.SuppressFixed,)
    return tyro.cli(asked, args=flags, config=config, prog=prog, description=source.__doc__)


def _check(folder: Path) -> None:
    """Print what is broken in a folder; UserError when anything is."""
    faults = find_faults(folder)
    for file, what in faults:
        print(f"{file}: {what}")
    if faults:
        broken = sorted({file for file, _ in faults})
        raise UserError(f"{len(broken)} broken files in '{folder}': delete them and collect into it again")
    data = Shards(folder)
    print(f"all is well: {data.frames} frames in {len(data)} clips")
