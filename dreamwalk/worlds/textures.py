"""Textures of Freedoom for levels from seeds: they stand still, hide what is behind, and are clear at 96x128.

Walls have names in plain words, which captions use.
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


def _walls(text: str) -> dict[str, str]:
    """Textures by name, from "TEXTURE name, TEXTURE name"."""
    pairs = (entry.split(maxsplit=1) for entry in text.split(","))
    return {name.strip(): texture for texture, name in pairs}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STEEL = _walls(
    """SHAWN2 steel, SHAWN02 white steel, SHAWN01 ribbed steel, ESPIGR1 grey plate, ESPITAN1 tan plate,
    ESPIBR1 bronze plate, ESPIG1 green plate, SILVER1 silver, ESPITAN3 rusty plate, ESPIG3 streaked plate,
    GRAYRED rusty red, METAL1 scale, GRAY7 grey panel, GRAY1 grey sheet, TEKGREN2 green panel, PIPES pipe,
    AQPANL05 riveted panel, AQPANL08 iron grating, AQMETL13 ribbed iron, BROWN1 brown plate,
    AQCONC13 grooved concrete, AQCONC17 concrete, AQCONC12 concrete block, AQCONC16 concrete slab,
    CEMENT3 cement, CEMENT9 mossy cement, MOD5 hatch"""
)
_STONE = _walls(
    """STARTAN1 stone, STARG1 mossy stone, STARGR1 grey stone, STARBR1 orange stone, STARG4 painted stone,
    STARTAN3 striped stone, STARG3 green stone, STWALL sandstone, BIGWALL carved sandstone,
    SP_HOT1 red brick, ZZWOLF11 old brick, BRICK6 brown brick, BRICK12 pale brick, A-BRICK1 grey brick,
    A-BROCK2 rose brick, A-DBRI1 white brick, A-MOSBRI mossy brick, ZZWOLF9 blue brick,
    AQBRIK01 grey herringbone, AQBRIK02 orange herringbone, AQBRIK03 cream herringbone,
    A-BRBRK rough brick, STONEW1 fieldstone, STONEW5 white masonry, STUCCO plaster, STONE grey masonry,
    BRICK3 cracked plaster, SPACEW4 brick tile, A-CONCTE white plaster"""
)
_ROCK = _walls(
    """BSTONE1 cobble, A-REDROK red rock, ROCK4 brown rock, ROCK5 pale rock, ZIMMER8 ash,
    ZZWOLF1 white rubble, SP_ROCK1 grey cliff, CARLLF1 yellow cliff, TANROCK2 tan rock,
    STONE6 orange rock, STONE4 grey rock, A-ROCK boulder, A-MOSRK2 mossy boulder, BROVINE2 root,
    GRAYVINE grey root, A-CAMO1 hedge, ZIMMER2 moss, A-CAMO4 ivy, DOGRMSC green scale,
    ZIMMER7 green cliff, TANROCK8 earth"""
)
_WOOD = _walls(
    """WOOD3 wood panel, A-MYWOOD shingle, WOOD1 plank, A-WOOD1 log, WOOD12 pine, PANCASE2 oak, WOOD8 timber,
    WOOD10 fence, CRATE1 crate, CRATE2 steel crate, CR64LB cardboard, PANEL6 wainscot, PANEL2 framed wood,
    ZZWOLF5 dark wood"""
)
_HALL = _walls(
    """DOKGRIR green marble, MARBLE1 dark marble, MARBGRAY grey marble, GSTONE1 temple block,
    REDWALL1 red metal, REDWALL red plaster, DOGLDIR copper, LONGWALL hieroglyph, A-TILE green mosaic,
    MARBLE2 banded marble, SKIN2 pink hide, AQTILE03 brown mosaic"""
)
_TILE = _walls(
    """AQLITE07 blue tile, AQLITE09 green tile, AQLITE11 orange tile, AQLITE13 red tile,
    AQLITE15 yellow tile, LITEBLU4 blue light, AQLITE05 white tile"""
)
_FACES = _names("MARBFAC2 MARBFAC3 MARBFACE GSTLION GSTGARG GSTSATYR MURAL1 MURAL2 BIGMURAL")
_FLAGS = _names("PANBLACK PANBLUE PANRED PANBOOK PANEL5 ZZWOLF6 ZZWOLF7 ZZWOLF8 ZZWOLF7B")
_ARMS = _names("ZZWOLF2 ZZWOLF3 ZZWOLF4 ZZWOLF12 ZZWOLF13 BRICKLIT BSTONE3 BRWINDOW LITESTON")
_TECH = _names(
    """COMPSTA1 COMPSTA2 COMPUTE1 PLANET1 COMPUTE4 SILVER2 SILVER3 SHAWN1 DOC1 LITEMET LITE96 LITE2 LITEYEL3
    TEKBRON2 MODWALL3 MODWALL4 GRAY4 AQPANL09 AQLITE05"""
)
_GATES = _names(
    """BIGDOOR1 BIGDOOR2 BIGDOOR3 BIGDOOR4 TNTDOOR ZDOORB1 ZELDOOR ZZWOLF10 SPCDOOR1 SPCDOOR3 DOOR1 DOOR3
    AQDOOR01"""
)
_OLD = _names("BIGDOOR5 BIGDOOR6 BIGDOOR7 BIGDOR6A DOKODO2B METALDR PLAT1 SPCDOOR4 WOODGARG")
_LIGHTS = _names("LITE3 LITE5 LITEBLU4 LITEGRN1 LITERED1 LITEYEL1")
_METAL = _names("SHAWN2 SUPPORT2 STARGR1 ESPIGR1 AQSUPP10 AQSUPP11 GRAY1 AQCONC13")
_MASONRY = _names("BRICK6 PILLAR STONE STWALL WOOD3 MARBGRAY BSTONE1 AQBRIK03 STARTAN1")
THEMES = {
    "steel": Theme(_STEEL, _METAL + _LIGHTS, _TECH, _GATES),
    "stone": Theme(_STONE, _MASONRY + _METAL[:2] + _LIGHTS[:3], _ARMS + _FACES + _TECH[5:12], _GATES + _OLD),
    "rock": Theme(_ROCK, _MASONRY, _ARMS + _FACES, _OLD),
    "wood": Theme(_WOOD, _MASONRY + _METAL[1:3], _FLAGS + _ARMS[-4:], _OLD + _GATES[:2]),
    "tile": Theme(_TILE, _METAL + _LIGHTS, _TECH, _GATES),
    "hall": Theme(_HALL, _MASONRY + _METAL[:4] + _LIGHTS, _FACES + _FLAGS + _TECH[-6:], _OLD + _GATES),
}
WALLS = {name: texture for theme in THEMES.values() for name, texture in theme.walls.items()}
CRATES = _names("CRATE1 CRATE2 CR64LB WOOD3 A-MYWOOD SHAWN2 STONE4 AQPANL05 BRICK6 MARBLE1")
_NARROW = _names(
    """GSTLION GSTGARG GSTSATYR BRICKLIT BSTONE3 BRWINDOW PANBLACK PANBLUE PANRED PANBOOK PANEL5 LITESTON
    SILVER2 SILVER3 LITE96 LITE2 TEKBRON2 MODWALL3 MODWALL4 GRAY4 AQPANL09 AQLITE05 SPCDOOR1 SPCDOOR3
    SPCDOOR4 DOKODO2B WOODGARG"""
)
_SIZES = dict.fromkeys(_NARROW, (64, 128)) | dict.fromkeys(("BIGMURAL", "PLANET1", "COMPUTE4"), (256, 128))
_SIZES |= {"DOOR1": (64, 72), "DOOR3": (64, 72), "BIGDOOR1": (128, 96), "BIGDOOR6": (128, 112)}


def size_of(texture: str) -> tuple[int, int]:
    """Width and height of a feature or a door, in units, so that it is put whole."""
    return _SIZES.get(texture, (128, 128))


FLOORS = _names(
    """FLOOR0_2 FLOOR4_8 FLAT5 AQF067 FLAT23 FLOOR0_1 FLOOR0_3 FLOOR0_6 FLOOR4_6 FLOOR5_4 FLAT8 FLAT5_3
    FLOOR7_2 CEIL3_3 COMP01 MFLR8_1 RROCK12 FLOOR1_6 FLOOR5_3 CRATOP2 FLAT1_1 FLAT20 FLAT5_1 FLAT5_5
    FLAT14 FLOOR4_1 FLOOR5_1 FLOOR6_2 FLOOR0_7 MFLR8_3 RROCK09 RROCK11 RROCK14 RROCK16 SLIME16 STEP1
    DEM1_5 DEM1_6 FLAT3 AQF016 AQF027 AQF046 AQF047 AQF048 AQF050 AQF055 AQF057 AQF075 AQF076 FCGRATE1
    AQF008 CEIL3_1 CEIL3_2 FLOOR3_3 AQF018 FLAT5_7"""
)
GROUNDS = _names(
    """GRASS1 GRASS2 AQF022 AQF022 RROCK20 AQF023 FLAT10 RROCK16 AQF008 FLOOR7_2 RROCK19 FLAT5_7 MFLR8_3"""
)
"""Floors outdoors."""
CEILINGS = _names(
    """AQF067 FLAT23 CEIL3_1 CEIL3_2 CEIL3_3 CEIL3_5 FLOOR0_3 COMP01 FLAT3 FLOOR0_1 CEIL5_1 FLAT1 FLAT18
    FLAT19 FLAT20 FLAT5_4 CEIL1_1 AQF025 AQF050 AQF056 AQF017 SLIME16 FLOOR5_4 FLAT9 FLOOR0_2 AQF046
    FLAT5_5 FLOOR4_1 AQF049"""
)
LAMPS = _names(
    """TLITE6_1 TLITE6_4 TLITE6_5 TLITE6_6 FLAT17 FLAT2 CEIL3_4 CEIL1_2 GRNLITE1 AQF010 AQF014 AQF058 AQF062
    AQF035 AQF039 AQF043 FLOOR1_7"""
)
