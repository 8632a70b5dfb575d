"""What the documentation refers to exists: files, verbs, runs, flags, and Python that can be read."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamwalk.training.run import RUNS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = {"play", "sample", "evaluate", "collect", "train", "import"}
COLLECTED = {"doom", "visits", "videos", "realestate", "dl3dv", "game", "latents", "--check"}


def commands(*, whole: bool) -> Iterator[tuple[str, list[str]]]:
    """Every `dreamwalk ...` with its page: whole ones in blocks, or mentions between backticks."""
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```\w*\n(.*?)```", text, re.S)
        mentions = re.findall(r"`([^`\n]+)`", text)
        for line in "\n".join(blocks).split("\n") if whole else mentions:
            words = shlex.split(line, comments=True) if line.startswith("dreamwalk ") else []
            if len(words) > 1:
                yield page.name, words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" in target:
            continue
        found = (page.parent / target).resolve()
        assert found.exists(), f"{page.name}: {target}"


def test_commands_exist() -> None:
    found = [*commands(whole=True), *commands(whole=False)]
    assert len(found) > 10
    for page, words in found:
        assert words[0] in VERBS, f"{page}: dreamwalk {' '.join(words)}"
        if words[0] == "train" and len(words) > 1 and not words[1].isupper():
            assert words[1] in RUNS, f"{page}: dreamwalk {' '.join(words)}"
        if words[0] == "collect" and len(words) > 1:
            assert words[1] in COLLECTED, f"{page}: dreamwalk {' '.join(words)}"


def test_flags_exist() -> None:
    """Flags of the documentation, read by the parsers of the command line; nothing is run."""
    from dreamwalk.commands.collect import collect_flags
    from dreamwalk.commands.flags import parse_flags
    from dreamwalk.commands.import_weights import KINDS
    from dreamwalk.commands.play import Play
    from dreamwalk.commands.sample import SampleClip, SampleWalk
    from dreamwalk.commands.sample_path import SamplePath
    from dreamwalk.commands.train import Train, with_parts
    from dreamwalk.evaluation.clips import EvaluateClips
    from dreamwalk.evaluation.codebook import EvaluateCodebook
    from dreamwalk.evaluation.places import EvaluatePlaces
    from dreamwalk.evaluation.walks import EvaluateWalks

    reports = {"places": EvaluatePlaces, "codebook": EvaluateCodebook}
    kinds = {"play": Play, "sample": SampleWalk, "evaluate": EvaluateWalks}
    for page, words in commands(whole=True):
        flags = words[2:]
        if words[1:2] == ["--check"]:
            continue
        kind = kinds.get(words[0], Train)
        of_clips = "moviegen." in words[1] or "hunyuan" in words[1]
        kind = {SampleWalk: SampleClip, EvaluateWalks: EvaluateClips}.get(kind, kind) if of_clips else kind
        kind = KINDS[words[1]][0] if words[0] == "import" else kind
        kind = SamplePath if words[0] == "sample" and "voyager." in words[1] else kind
        kind = next((reports[flag] for flag in flags if flag in reports), kind)
        default = None
        if words[0] == "train":
            run, flags = with_parts(RUNS[words[1]](), flags)
            default = Train(run)
        try:
            if words[0] == "collect":
                collect_flags(words[1], flags)
            else:
                parse_flags(kind, flags, prog=page, default=default)
        except SystemExit:
            pytest.fail(f"{page}: dreamwalk {' '.join(words)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_can_be_read(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        ast.parse(block)


def numbers(page: str, row: str) -> dict[str, str]:
    """A row of a table by the heads of its columns; of "a / b" the first."""
    lines = (ROOT / page).read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {row}"))
    head = next(lines[i - 1] for i in range(at, 0, -1) if lines[i].startswith("|---"))
    cells = [
        [cell.strip().split(" / ")[0] for cell in line.strip("|").split("|")] for line in (head, lines[at])
    ]
    return dict(zip(*cells, strict=True))


def test_figures_of_the_shipped_dream_agree() -> None:
    front, page = numbers("README.md", "dream |"), numbers("docs/systems/nextframe.md", "the shipped weights")
    ahead = ["1", "8", "16", "32", "64"]
    assert [front[k] for k in ahead] == [page[k] for k in ahead]
    assert all(10 < float(front[k]) < 40 for k in ahead)
    turns = [numbers("README.md", row)["first 64"] for row in ("in the dream", "in the real frames")]
    assert f"{turns[0]} of sixty-four ({turns[1]})" in (ROOT / "docs/systems/nextframe.md").read_text()


def test_make_has_what_is_promised() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make (\w+)", page.read_text(), re.M)
        assert set(named) <= targets, page.name
