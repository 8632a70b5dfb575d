"""Codecs side by side that should differ by their bottleneck alone, and whether they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dreamwalk.errors import UserError
from dreamwalk.evaluation.codings import Coding, coding_of
from dreamwalk.systems.autoencode import Autoencode
from dreamwalk.systems.open import load
from dreamwalk.systems.system import System
from dreamwalk.weights.config import to_json

MEANT = "codec.channels", "codec.quantizer"
"""What is meant to differ: what lies in the middle, and how many channels it takes."""
PLUMBING = {"kind", "name", "system", "codec", "resident", "checkpoint_blocks", "compile_blocks"}
PLUMBING |= {"save_every", "preview_every", "log_every", "keep", "steps"}
"""What a run says that does not change what it learns; its system, which the file tells by itself; and the
steps that were planned, of which a run under way has done fewer."""


@dataclass(frozen=True)
class ExaminedCodec:
    """One of the codecs side by side."""

    label: str
    source: str
    """Weights that it came from."""
    coding: Coding
    parameters: int
    facts: dict[str, Any]
    """Sizes of the layers and how they were trained, by dotted names, as far as the file tells."""

    @property
    def continuous(self) -> bool:
        """Whether its latents are not of a vocabulary."""
        return not self.coding.stages

    @property
    def steps(self) -> int | None:
        """Of training; None where the file does not tell."""
        return self.facts.get("steps")


def examined_codecs(system: System, name: str, matched: Sequence[str]) -> list[ExaminedCodec]:
    """That of a system first, which must have a vocabulary, then those of other weights, with labels of their
    own; UserError for weights without a codec of RGB."""
    first = examined(system, name)
    if first.continuous:
        raise UserError(
            f"the codec of '{name}' has no quantizer, so no vocabulary costs it anything: name a codec of "
            "tokens, and give this one to `--matched`"
        )
    found = [first, *(examined(load(source), source) for source in matched)]
    often = Counter(each.label for each in found)
    named = [_with_source(each) if often[each.label] > 1 else each for each in found]
    if len({each.label for each in named}) < len(named):
        raise UserError(f"`--matched` names the same weights twice: '{' '.join((name, *matched))}'")
    return named


def examined(system: System, source: str) -> ExaminedCodec:
    """The codec of a system; UserError where there is none of RGB."""
    codec = getattr(system, "codec", None)
    if not isinstance(codec, nn.Module) or (coding := coding_of(codec)) is None:
        raise UserError(f"'{source}' is of the system {system.name}, which has no codec of RGB to compare")
    parameters = sum(p.numel() for p in codec.parameters())
    return ExaminedCodec(coding.kind, source, coding, parameters, _facts(system, coding))


def differences(one: ExaminedCodec, other: ExaminedCodec) -> dict[str, tuple[Any, Any]]:
    """What differs between two beside what lies in the middle; None stands for what is not there or not
    told."""
    names = sorted(name for name in {**one.facts, **other.facts} if not name.startswith(MEANT))
    pairs = {name: (one.facts.get(name), other.facts.get(name)) for name in names}
    found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if "codec.kind" in found:  # all sizes of another codec are others
        found = {k: v for k, v in found.items() if k == "codec.kind" or not k.startswith("codec.")}
    return found


def _with_source(each: ExaminedCodec) -> ExaminedCodec:
    path = Path(each.source)
    return replace(each, label=f"{each.label} ({path.parent.name + '/' if path.suffix else ''}{path.name})")


def _facts(system: System, coding: Coding) -> dict[str, Any]:
    """Only a run of `autoencode` says how its codec was trained."""
    facts = {"codec": to_json(coding.sizes)}
    if isinstance(system, Autoencode):
        about = system.about or {}
        loss = {key: value for key, value in to_json(system.config).items() if key not in ("kind", "codec")}
        told = about["run"] if isinstance(about.get("run"), Mapping) else {}
        facts |= {"loss": loss, "run": {key: value for key, value in told.items() if key not in PLUMBING}}
        facts |= {"steps": about["step"]} if "step" in about else {}
    return dict(_flat(facts, ()))


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, (*path, key))
    else:
        yield ".".join(path), value
