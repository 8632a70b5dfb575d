"""The page: walk through any World in a browser. Never imports torch.

from dreamwalk.serve import Clips, Progress, Stage, Start, WebClipRequest, serve
serve(Stage(title="nextframe.doom", dream=make_dream, game=make_game, starts=[...], notes={...}))
"""

from dreamwalk.serve.access import Access
from dreamwalk.serve.app import build_app
from dreamwalk.serve.server import serve
from dreamwalk.serve.stage import Clips, Progress, Stage, Start, WebClipRequest

__all__ = ["Access", "Clips", "Progress", "Stage", "Start", "WebClipRequest", "build_app", "serve"]
