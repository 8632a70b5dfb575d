"""The command line: a verb, a name, and flags that are the fields of a config.

    dreamwalk play nextframe.doom
    dreamwalk train nextframe.game --steps 4000 --optim.lr 3e-4

Nothing heavy is imported before the verb and the name are known.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamwalk import __version__
from dreamwalk.errors import TOO_FULL, UserError, require_writable

USAGE = """usage: dreamwalk VERB NAME [flags]      (dreamwalk VERB --help tells the flags)

  play      walk in a dream, or in the game, in your browser
  sample    dream a walk into a video, on any schedule
  evaluate  examine a system on held-out walks
  collect   walk a game, or cut videos, and write clips
  train     train a system on clips
  import    make weights that others published playable here
  --version

  dreamwalk play nextframe.doom
  dreamwalk sample forcing.doom --schedule pyramid --frames 64 --out walk.mp4
  dreamwalk sample moviegen.doom --prompt "walk through a brick hall" --out clip.mp4
  dreamwalk evaluate nextframe.doom --data data/doom-test
  dreamwalk collect doom --level home --frames 40000 --out data/doom
  dreamwalk train nextframe.game --data data/mine --out runs/mine
  dreamwalk import oasis downloads --out oasis.safetensors
"""

EXTRAS = {
    "tensorboard": "train",
    "torchmetrics": "train",
    "matplotlib": "train",
    "transformers": "published",
    "sentencepiece": "published",
    "wandb": "wandb",
}
"""Packages that come only with a group of `pyproject.toml`, and its name."""


def main(argv: list[str] | None = None) -> None:
    """Run a command. A `UserError` becomes one sentence on stderr and exit code 2; ctrl-C exits with 130."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    if words[0] in ("-V", "--version"):
        print(f"dreamwalk {__version__}")
        return
    verbs: dict[str, Callable[[list[str]], None]] = {
        "play": play,
        "sample": sample,
        "evaluate": evaluate,
        "collect": collect,
        "train": train,
        "import": import_weights,
    }
    try:
        if words[0] not in verbs:
            raise UserError(f"unknown verb '{words[0]}'" + _suggest(words[0], list(verbs)))
        verbs[words[0]](words[1:])
    except UserError as error:
        sys.exit(_complain(f"dreamwalk: {error}"))
    except BrokenPipeError:
        sys.exit(1)
    except ModuleNotFoundError as error:  # of a group that is not installed unless it is asked for
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        mend = f"`pip install 'dreamwalk[{EXTRAS[package]}]'`, or `pip install '.[{EXTRAS[package]}]'` here"
        sys.exit(_complain(f"dreamwalk: this needs the package {package}: {mend}"))
    except OSError as error:  # a folder that may not be written, a full disk, which has no name
        if error.filename is None and error.errno not in TOO_FULL:
            raise
        what = f"'{error.filename}' cannot be used" if error.filename else "free some space on the disk"
        sys.exit(_complain(f"dreamwalk: {what}: {error.strerror}"))
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean '{close[0]}'?" if close else f": known are {', '.join(known)}"


def _named(words: list[str], verb: str, known: list[str]) -> tuple[str, list[str]]:
    """The name after a verb and the flags after it."""
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        raise UserError(f"`dreamwalk {verb}` needs a name first, such as '{known[0]}'")
    return ("", words) if words[0] in ("-h", "--help") else (words[0], words[1:])


def _check_shown(name: str, verb: str, *more: str) -> None:
    """UserError, with what ships, for a name that means no weights, or weights that show nothing."""
    from dreamwalk.systems.open import is_shown, kind_of, known, shipped

    names = [*more, *(each for each in shipped() if is_shown(kind_of(each)))]
    listed = f"to {verb} there are {', '.join(names)}"
    if not known(name):
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise UserError(f"there are no weights called '{name}', and no such file or folder: {hint}{listed}")
    if not is_shown(kind := kind_of(name)):
        raise UserError(f"'{name}' is of the system {kind}, which dreams nothing to look at: {listed}")


def _flags(kind: Any, words: list[str], *, prog: str, default: Any = None) -> Any:
    """`words` as a dataclass, by tyro; a field that is one of several configs keeps its default's kind."""
    import tyro

    given = {} if default is None else {"default": default}
    return tyro.cli(kind, args=words, prog=prog, config=(tyro.conf.AvoidSubcommands,), **given)


def train(words: list[str]) -> None:
    """`dreamwalk train NAME`: the flags are in `commands/train.py`."""
    from dreamwalk.commands.train import RUNS, Train, defaults

    name, rest = _named(words, "train", list(RUNS))
    if name and name not in RUNS:
        raise UserError(f"there is no run called '{name}'" + _suggest(name, list(RUNS)))
    asked = _flags(
        Train, rest, prog=f"dreamwalk train {name or 'NAME'}", default=defaults(name or next(iter(RUNS)))
    )
    from dreamwalk.training.fit import fit

    out = Path(asked.out or f"runs/{asked.run.name}")
    path = fit(
        asked.run, out, resume=asked.resume, minutes=asked.minutes, device=asked.device, wandb=asked.wandb
    )
    print(f"weights: {path}")


@dataclass(frozen=True)
class Play:
    """Open a page on this machine in which you walk."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets others on your network in."""
    port: int = 8000
    allow_host: tuple[str, ...] = ()
    """Names by which others reach the page, as behind a proxy (docs/serving.md); addresses in numbers,
    localhost and this machine's own name are always taken, and * takes any."""
    root_path: str = ""
    """Path under which a proxy shows the page, such as /dream."""
    max_sessions: int = 8
    """How many walk at once."""
    max_waiting: int = 32
    """How many more wait for their turn."""
    browser: bool = True
    """Open the page in your browser."""
    level: str = "home"
    """Level of the real game, for `dreamwalk play doom`."""
    device: Literal["cuda", "cpu"] | None = None
    """Default: an NVIDIA card if there is one."""


def play(words: list[str]) -> None:
    """`dreamwalk play NAME`: shipped weights, a weight file, a run folder, or `doom` for the game itself."""
    name, rest = _named(words, "play", ["nextframe.doom", "doom"])
    asked = _flags(Play, rest, prog=f"dreamwalk play {name or 'NAME'}")
    from dreamwalk.commands.play import game_app, open_app
    from dreamwalk.serve import serve

    if name != "doom":
        _check_shown(name, "play", "doom")
    stage = game_app(asked.level) if name == "doom" else open_app(name, asked.device)
    serve(
        stage,
        host=asked.host,
        port=asked.port,
        open_browser=asked.browser,
        max_sessions=asked.max_sessions,
        max_waiting=asked.max_waiting,
        allowed=asked.allow_host,
        root=asked.root_path,
    )


def _check_seed(seed: int | None) -> None:
    if seed is not None and seed < 0:
        raise UserError(f"a seed is a whole number from 0 up, got {seed}")


def sample(words: list[str]) -> None:
    """`dreamwalk sample NAME --out v.mp4`: flags are in `commands/sample_walk.py` and `sample_clip.py`."""
    name, rest = _named(words, "sample", ["nextframe.doom", "forcing.doom", "moviegen.doom"])
    from dreamwalk.systems.open import is_of_clips

    if name:
        _check_shown(name, "sample")
    if is_of_clips(name):
        return _sample_clip(name, rest)
    from dreamwalk.commands import sample_walk as sampling

    asked = _flags(sampling.Sample, rest, prog=f"dreamwalk sample {name or 'NAME'}")
    from dreamwalk.data.film import check_film, replay, write_film
    from dreamwalk.progress import followed
    from dreamwalk.systems.open import load

    _check_seed(asked.seed)
    check_film(asked.out)
    asked.check()
    system: Any = load(name)
    walk = sampling.walk_of(asked, system.walkable)
    world = system.world()
    if asked.plan:
        from dreamwalk.evaluation.plots import plan_picture

        plan = sampling.plan_of(asked, system, walk.steps or None)
        print(plan.show())
        print("approximate:", "; ".join(plan.approximate) or "nothing")
        plan_picture(plan, asked.plan, title=f"{name}: {asked.schedule or 'next-frame'}")
    if asked.scheduled:
        start = world.opening(walk.start, seed=walk.seed)
        frames = sampling.film(system, start, walk, asked, decode=world.decode_latents)
    else:
        frames = replay(world, walk)
    seen = followed(frames, "dreaming", total=len(walk) + 1)
    count = write_film(asked.out, seen, fps=world.fps)
    print(f"{count} frames: {asked.out}")


def _sample_clip(name: str, words: list[str]) -> None:
    from dreamwalk.commands.clip_memory import placed, require_room, shortage_told
    from dreamwalk.commands.sample_clip import SampleClip, write_clip

    asked = _flags(SampleClip, words, prog=f"dreamwalk sample {name}")
    from dreamwalk.distributed import pick_device
    from dreamwalk.systems.open import load_mmap, meta_system
    from dreamwalk.weights.files import align_

    _check_seed(asked.seed)
    asked.check()
    device = pick_device(asked.device)
    require_room(asked, meta_system(name), device)
    with shortage_told(asked):
        system = placed(asked, load_mmap(name), device)
        align_(system)
        count = write_clip(asked, system)
    print(f"{count} frames: {asked.out}")


def evaluate(words: list[str]) -> None:
    """`dreamwalk evaluate NAME --data DIR`: the flags are in `evaluation/examine.py`, or `clips.py` there."""
    name, rest = _named(words, "evaluate", ["nextframe.doom", "moviegen.doom"])
    from dreamwalk.systems.open import is_of_clips, load, load_examiner

    if name:
        _check_shown(name, "evaluate")
    if is_of_clips(name):
        from dreamwalk.evaluation import clips as module
    else:
        from dreamwalk.evaluation import examine as module  # type: ignore[no-redef]
    asked = _flags(module.Evaluate, rest, prog=f"dreamwalk evaluate {name or 'NAME'}")
    from dreamwalk.data.shards import Shards

    _check_seed(asked.seed)
    Shards(asked.data)  # says what is wrong with the folder before anything heavy is opened
    require_writable(asked.out)
    module.examine(load(name), asked, name=name, examiner=load_examiner(asked.examiner))


def import_weights(words: list[str]) -> None:
    """`dreamwalk import NAME DIR --out FILE`: flags of `published/oasis.py` and `published/hunyuan.py`."""
    known = ["oasis", "hunyuanvideo"]
    name, rest = _named(words, "import", known)
    if name not in ("", *known):
        raise UserError(f"there are no published weights called '{name}'" + _suggest(name, known))
    from dreamwalk.published import hunyuan
    from dreamwalk.published import oasis as published

    prog = f"dreamwalk import {name or 'NAME'}"
    if name == "hunyuanvideo":
        hunyuan.import_weights(_flags(hunyuan.ImportHunyuan, rest, prog=prog))
    else:
        published.import_weights(_flags(published.Import, rest, prog=prog))


def collect(words: list[str]) -> None:
    """`dreamwalk collect doom --level home --frames N --out DIR`, or `--check DIR`."""
    from dreamwalk.commands.collect import run_collect

    run_collect(words)
