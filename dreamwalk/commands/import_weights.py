"""`dreamwalk import NAME DIR --out FILE`: published weights become a weight file of ours."""

from __future__ import annotations

from dreamwalk.commands.flags import parse_flags, split_name, suggest
from dreamwalk.errors import UserError
from dreamwalk.published import hunyuan, oasis, var, voyager, worldmem

OASIS, HUNYUAN = (oasis.ImportOasis, oasis.import_oasis), (hunyuan.ImportHunyuan, hunyuan.import_hunyuan)
WORLDMEM = worldmem.ImportWorldMem, worldmem.import_worldmem
VOYAGER = voyager.ImportVoyager, voyager.import_voyager
VAR = var.ImportVAR, var.import_var
KINDS = {"oasis": OASIS, "hunyuanvideo": HUNYUAN, "worldmem": WORLDMEM, "voyager": VOYAGER, "var": VAR}


def import_weights(argv: list[str]) -> None:
    """Run the verb."""
    name, rest = split_name(argv, "import", list(KINDS))
    if name not in ("", *KINDS):
        raise UserError(f"there are no published weights called '{name}'" + suggest(name, list(KINDS)))
    flags, run = KINDS[name or "oasis"]
    run(parse_flags(flags, rest, prog=f"import {name or 'NAME'}"))
