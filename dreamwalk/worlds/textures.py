"""Textures of Freedoom for levels from seeds: those that stand still, hide what is behind, and are clear at 96x128.

Walls have names in plain words, which captions use. `FEATURES` and `DOORS` say the width and height in units, so
that a whole number of them fits where they are put.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """What goes together in a room; `walls` by their names."""

    walls: dict[str, str]
    trims: tuple[str, ...]
    features: tuple[str, ...]
    doors: tuple[str, ...]


_STEEL = {"steel": "SHAWN2", "white steel": "SHAWN02", "ribbed steel": "SHAWN01", "grey plate": "ESPIGR1"}
_STEEL |= {"tan plate": "ESPITAN1", "bronze plate": "ESPIBR1", "green plate": "ESPIG1", "silver": "SILVER1"}
_STEEL |= {"rusty plate": "ESPITAN3", "streaked plate": "ESPIG3", "rusty red": "GRAYRED", "scale": "METAL1"}
_STEEL |= {"grey panel": "GRAY7", "grey sheet": "GRAY1", "green panel": "TEKGREN2", "pipe": "PIPES"}
_STEEL |= {"riveted panel": "AQPANL05", "iron grating": "AQPANL08", "ribbed iron": "AQMETL13", "brown plate": "BROWN1"}
_STEEL |= {"grooved concrete": "AQCONC13", "concrete": "AQCONC17", "concrete block": "AQCONC12"}
_STEEL |= {"concrete slab": "AQCONC16", "cement": "CEMENT3", "mossy cement": "CEMENT9", "hatch": "MOD5"}
_STONE = {"stone": "STARTAN1", "mossy stone": "STARG1", "grey stone": "STARGR1", "orange stone": "STARBR1"}
_STONE |= {"painted stone": "STARG4", "striped stone": "STARTAN3", "green stone": "STARG3"}
_STONE |= {"sandstone": "STWALL", "carved sandstone": "BIGWALL", "red brick": "SP_HOT1"}
_STONE |= {"old brick": "ZZWOLF11", "brown brick": "BRICK6", "pale brick": "BRICK12", "grey brick": "A-BRICK1"}
_STONE |= {"rose brick": "A-BROCK2", "white brick": "A-DBRI1", "mossy brick": "A-MOSBRI", "blue brick": "ZZWOLF9"}
_STONE |= {"grey herringbone": "AQBRIK01", "orange herringbone": "AQBRIK02", "cream herringbone": "AQBRIK03"}
_STONE |= {"rough brick": "A-BRBRK", "fieldstone": "STONEW1", "white masonry": "STONEW5", "plaster": "STUCCO"}
_STONE |= {"grey masonry": "STONE", "cracked plaster": "BRICK3", "brick tile": "SPACEW4", "white plaster": "A-CONCTE"}
_ROCK = {"cobble": "BSTONE1", "red rock": "A-REDROK", "brown rock": "ROCK4", "pale rock": "ROCK5", "ash": "ZIMMER8"}
_ROCK |= {"white rubble": "ZZWOLF1", "grey cliff": "SP_ROCK1", "yellow cliff": "CARLLF1", "tan rock": "TANROCK2"}
_ROCK |= {"orange rock": "STONE6", "grey rock": "STONE4", "boulder": "A-ROCK", "mossy boulder": "A-MOSRK2"}
_ROCK |= {"root": "BROVINE2", "grey root": "GRAYVINE", "hedge": "A-CAMO1", "moss": "ZIMMER2", "ivy": "A-CAMO4"}
_ROCK |= {"green scale": "DOGRMSC", "green cliff": "ZIMMER7", "earth": "TANROCK8"}
_WOOD = {"wood panel": "WOOD3", "shingle": "A-MYWOOD", "plank": "WOOD1", "log": "A-WOOD1", "pine": "WOOD12"}
_WOOD |= {"oak": "PANCASE2", "timber": "WOOD8", "fence": "WOOD10", "crate": "CRATE1", "steel crate": "CRATE2"}
_WOOD |= {"cardboard": "CR64LB", "wainscot": "PANEL6", "framed wood": "PANEL2", "dark wood": "ZZWOLF5"}
_HALL = {"green marble": "DOKGRIR", "dark marble": "MARBLE1", "grey marble": "MARBGRAY", "temple block": "GSTONE1"}
_HALL |= {"red metal": "REDWALL1", "red plaster": "REDWALL", "copper": "DOGLDIR", "hieroglyph": "LONGWALL"}
_HALL |= {"green mosaic": "A-TILE", "banded marble": "MARBLE2", "pink hide": "SKIN2", "brown mosaic": "AQTILE03"}
_TILE = {"blue tile": "AQLITE07", "green tile": "AQLITE09", "orange tile": "AQLITE11", "red tile": "AQLITE13"}
_TILE |= {"yellow tile": "AQLITE15", "blue light": "LITEBLU4", "white tile": "AQLITE05"}

_FACES = ("MARBFAC2", "MARBFAC3", "MARBFACE", "GSTLION", "GSTGARG", "GSTSATYR", "MURAL1", "MURAL2", "BIGMURAL")
_FLAGS = ("PANBLACK", "PANBLUE", "PANRED", "PANBOOK", "PANEL5", "ZZWOLF6", "ZZWOLF7", "ZZWOLF8", "ZZWOLF7B")
_ARMS = ("ZZWOLF2", "ZZWOLF3", "ZZWOLF4", "ZZWOLF12", "ZZWOLF13", "BRICKLIT", "BSTONE3", "BRWINDOW", "LITESTON")
_TECH = ("COMPSTA1", "COMPSTA2", "COMPUTE1", "PLANET1", "COMPUTE4", "SILVER2", "SILVER3", "SHAWN1", "DOC1", "LITEMET")
_TECH += ("LITE96", "LITE2", "LITEYEL3", "TEKBRON2", "MODWALL3", "MODWALL4", "GRAY4", "AQPANL09", "AQLITE05")
FEATURES = {name: (128, 128) for name in (*_FACES, *_FLAGS, *_ARMS, *_TECH)}
FEATURES |= {name: (64, 128) for name in ("GSTLION", "GSTGARG", "GSTSATYR", "BRICKLIT", "BSTONE3", "BRWINDOW")}
FEATURES |= {name: (64, 128) for name in ("PANBLACK", "PANBLUE", "PANRED", "PANBOOK", "PANEL5", "LITESTON")}
FEATURES |= {name: (64, 128) for name in ("SILVER2", "SILVER3", "LITE96", "LITE2", "TEKBRON2", "MODWALL3")}
FEATURES |= {name: (64, 128) for name in ("MODWALL4", "GRAY4", "AQPANL09", "AQLITE05")}
FEATURES |= {name: (256, 128) for name in ("BIGMURAL", "PLANET1", "COMPUTE4")}

_GATES = ("BIGDOOR1", "BIGDOOR2", "BIGDOOR3", "BIGDOOR4", "TNTDOOR", "ZDOORB1", "ZELDOOR", "ZZWOLF10")
_GATES += ("SPCDOOR1", "SPCDOOR3", "DOOR1", "DOOR3", "AQDOOR01")
_OLD = ("BIGDOOR5", "BIGDOOR6", "BIGDOOR7", "BIGDOR6A", "DOKODO2B", "METALDR", "PLAT1", "SPCDOOR4", "WOODGARG")
DOORS = {name: (128, 128) for name in (*_GATES, *_OLD)}
DOORS |= {name: (64, 128) for name in ("SPCDOOR1", "SPCDOOR3", "SPCDOOR4", "DOKODO2B", "WOODGARG")}
DOORS |= {"DOOR1": (64, 72), "DOOR3": (64, 72), "BIGDOOR1": (128, 96), "BIGDOOR6": (128, 112)}

_LIGHTS = ("LITE3", "LITE5", "LITEBLU4", "LITEGRN1", "LITERED1", "LITEYEL1")
_METAL = ("SHAWN2", "SUPPORT2", "STARGR1", "ESPIGR1", "AQSUPP10", "AQSUPP11", "GRAY1", "AQCONC13")
_OLDEN = ("BRICK6", "PILLAR", "STONE", "STWALL", "WOOD3", "MARBGRAY", "BSTONE1", "AQBRIK03", "STARTAN1")
THEMES = {
    "steel": Theme(_STEEL, _METAL + _LIGHTS, _TECH, _GATES),
    "stone": Theme(_STONE, _OLDEN + _METAL[:2] + _LIGHTS[:3], _ARMS + _FACES + _TECH[5:12], _GATES + _OLD),
    "rock": Theme(_ROCK, _OLDEN, _ARMS + _FACES, _OLD),
    "wood": Theme(_WOOD, _OLDEN + _METAL[1:3], _FLAGS + _ARMS[-4:], _OLD + _GATES[:2]),
    "tile": Theme(_TILE, _METAL + _LIGHTS, _TECH, _GATES),
    "hall": Theme(_HALL, _OLDEN + _METAL[:4] + _LIGHTS, _FACES + _FLAGS + _TECH[-6:], _OLD + _GATES),
}
WALLS = {name: texture for theme in THEMES.values() for name, texture in theme.walls.items()}
CRATES = ("CRATE1", "CRATE2", "CR64LB", "WOOD3", "A-MYWOOD", "SHAWN2", "STONE4", "AQPANL05", "BRICK6", "MARBLE1")

FLOORS: tuple[str, ...] = ("FLOOR0_2", "FLOOR4_8", "FLAT5", "AQF067", "FLAT23", "FLOOR0_1", "FLOOR0_3", "FLOOR0_6")
FLOORS += ("FLOOR4_6", "FLOOR5_4", "FLAT8", "FLAT5_3", "FLOOR7_2", "CEIL3_3", "COMP01", "MFLR8_1", "RROCK12")
FLOORS += ("FLOOR1_6", "FLOOR5_3", "CRATOP2", "FLAT1_1", "FLAT20", "FLAT5_1", "FLAT5_5", "FLAT14", "FLOOR4_1")
FLOORS += ("FLOOR5_1", "FLOOR6_2", "FLOOR0_7", "MFLR8_3", "RROCK09", "RROCK11", "RROCK14", "RROCK16", "SLIME16")
FLOORS += ("STEP1", "DEM1_5", "DEM1_6", "FLAT3", "AQF016", "AQF027", "AQF046", "AQF047", "AQF048", "AQF050", "AQF055")
FLOORS += ("AQF057", "AQF075", "AQF076", "FCGRATE1", "AQF008", "CEIL3_1", "CEIL3_2", "FLOOR3_3", "AQF018", "FLAT5_7")
GROUNDS = ("GRASS1", "GRASS2", "AQF022", "AQF022", "RROCK20", "AQF023", "FLAT10", "RROCK16", "AQF008", "FLOOR7_2")
GROUNDS += ("RROCK19", "FLAT5_7", "MFLR8_3")
CEILINGS = ("AQF067", "FLAT23", "CEIL3_1", "CEIL3_2", "CEIL3_3", "CEIL3_5", "FLOOR0_3", "COMP01", "FLAT3")
CEILINGS += ("FLOOR0_1", "CEIL5_1", "FLAT1", "FLAT18", "FLAT19", "FLAT20", "FLAT5_4", "CEIL1_1", "AQF025", "AQF050")
CEILINGS += ("AQF056", "AQF017", "SLIME16", "FLOOR5_4", "FLAT9", "FLOOR0_2", "AQF046", "FLAT5_5", "FLOOR4_1", "AQF049")
LAMPS = ("TLITE6_1", "TLITE6_4", "TLITE6_5", "TLITE6_6", "FLAT17", "FLAT2", "CEIL3_4", "CEIL1_2", "GRNLITE1")
LAMPS += ("AQF010", "AQF014", "AQF058", "AQF062", "AQF035", "AQF039", "AQF043", "FLOOR1_7")
