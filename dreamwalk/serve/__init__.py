"""The page: walk through any World in a browser. Never imports torch.

from dreamwalk.serve import Stage, Start, serve
serve(Stage(title="nextframe.doom", dream=make_dream, game=make_game, starts=[...], notes={...}))
"""

from dreamwalk.serve.app import build_app
from dreamwalk.serve.server import serve
from dreamwalk.serve.stage import Stage, Start

__all__ = ["Stage", "Start", "build_app", "serve"]
