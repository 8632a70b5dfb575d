"""The page: walk through any World in a browser. Never imports torch.

from dreamwalk.serve import AppConfig, serve
serve(AppConfig(title="nextframe.doom", dream=make_dream, game=make_game, starts=[...], notes={...}))
"""

from dreamwalk.serve.access import Access
from dreamwalk.serve.app import build_app
from dreamwalk.serve.app_config import (
    AppConfig,
    Clips,
    CloudSample,
    DreamMemory,
    GalleryStart,
    LevelMap,
    Levels,
    MemoryStrip,
    Progress,
    RecalledPicture,
    WebClipRequest,
)
from dreamwalk.serve.scene_config import ScenePoints, Scenes, WebPathRequest, WebSceneStart
from dreamwalk.serve.server import ServerConfig, serve

__all__ = ["Access", "AppConfig", "Clips", "CloudSample", "DreamMemory", "GalleryStart", "LevelMap", "Levels"]
__all__ += ["MemoryStrip", "Progress", "RecalledPicture", "ScenePoints", "Scenes", "ServerConfig"]
__all__ += ["WebClipRequest", "WebPathRequest", "WebSceneStart", "build_app", "serve"]
