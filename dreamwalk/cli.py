"""The command line: a verb, a name, and flags that are the fields of a config.

    dreamwalk play nextframe.doom
    dreamwalk train nextframe.game --steps 4000 --optim.lr 3e-4

A verb is a module of `commands`, and nothing heavy is imported before it is known.
"""

from __future__ import annotations

import sys
from importlib import import_module

from dreamwalk import __version__
from dreamwalk.commands.flags import suggest
from dreamwalk.errors import TOO_FULL, UserError

VERBS = {
    **{verb: verb for verb in ("play", "sample", "evaluate", "collect", "train")},
    "import": "import_weights",
}
"""The module of each verb, and the function in it."""
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
    elif words[0] in ("-V", "--version"):
        print(f"dreamwalk {__version__}")
    else:
        _run(*words)


def _run(verb: str, *words: str) -> None:
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb '{verb}'" + suggest(verb, list(VERBS)))
        name = VERBS[verb]
        getattr(import_module(f"dreamwalk.commands.{name}"), name)(list(words))
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.exit(1)
    except ModuleNotFoundError as error:  # of a group that is not installed unless it is asked for
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        mend = f"`pip install 'dreamwalk[{EXTRAS[package]}]'`, or `pip install '.[{EXTRAS[package]}]'` here"
        _fail(f"this needs the package {package}: {mend}")
    except OSError as error:  # a folder that may not be written, a full disk, which has no name
        if error.filename is None and error.errno not in TOO_FULL:
            raise
        what = f"'{error.filename}' cannot be used" if error.filename else "free some space on the disk"
        _fail(f"{what}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str) -> None:
    print(f"dreamwalk: {sentence}", file=sys.stderr)
    sys.exit(2)
