"""`dreamwalk evaluate NAME --data DIR`: walks, or clips, by what the name holds; or the codec alone."""

from __future__ import annotations

from itertools import pairwise

from dreamwalk.commands.flags import check_seed, parse_flags, split_name
from dreamwalk.data.shards import Shards
from dreamwalk.errors import require_writable
from dreamwalk.systems.open import load, load_inverse, require_generative


def evaluate(argv: list[str]) -> None:
    """Run the verb."""
    name, rest = split_name(argv, "evaluate", ["nextframe.doom", "moviegen.doom"])
    asks = lambda report: f"--report={report}" in rest or ("--report", report) in pairwise(rest)
    codec = asks("codebook")  # of any system that has one, which need not generate
    made = require_generative(name, "evaluate").generates if name and not codec else ""
    if codec:
        from dreamwalk.evaluation.codebook import EvaluateCodebook as Flags
        from dreamwalk.evaluation.codebook import evaluate_codebook as run
    elif made == "scenes":
        from dreamwalk.evaluation.scenes import EvaluateScenes as Flags  # type: ignore[assignment]
        from dreamwalk.evaluation.scenes import evaluate_scenes as run  # type: ignore[assignment]
    elif made == "clips":
        from dreamwalk.evaluation.clips import EvaluateClips as Flags  # type: ignore[assignment]
        from dreamwalk.evaluation.clips import evaluate_clips as run  # type: ignore[assignment]
    elif asks("objects"):
        from dreamwalk.evaluation.objects import EvaluateObjects as Flags  # type: ignore[assignment]
        from dreamwalk.evaluation.objects import evaluate_objects as run  # type: ignore[assignment]
    elif asks("revisits"):
        from dreamwalk.evaluation.revisits import EvaluateRevisits as Flags  # type: ignore[assignment]
        from dreamwalk.evaluation.revisits import evaluate_revisits as run  # type: ignore[assignment]
    elif asks("places"):
        from dreamwalk.evaluation.places import EvaluatePlaces as Flags  # type: ignore[assignment]
        from dreamwalk.evaluation.places import evaluate_places as run  # type: ignore[assignment]
    else:
        from dreamwalk.evaluation.walks import EvaluateWalks as Flags  # type: ignore[assignment]
        from dreamwalk.evaluation.walks import evaluate_walks as run  # type: ignore[assignment]
    asked = parse_flags(Flags, rest, prog=f"evaluate {name or 'NAME'}")
    check_seed(asked.seed)
    Shards(asked.data)  # says what is wrong with the folder before anything heavy is opened
    require_writable(asked.out)
    inverse = getattr(asked, "inverse", "")
    run(load(name), asked, name=name, inverse=load_inverse(inverse))
