"""Clouds and surfaces as files that viewers open: PLY, Gaussian splats, GLB; each whole or not at all.

Positions are in world units with OpenCV axes. A GLB, whose viewers take y for up, turns them so that it is
seen upright by the camera that is given.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamwalk.cameras import EDGE, depth_discontinuities, invert, unproject
from dreamwalk.errors import UserError, atomic, writing

GAUSSIAN_WIDTH, GAUSSIAN_THICKNESS = 0.6, 0.05
"""Standard deviations of a splat, along its surface in footprints, and through it in those."""
OPACITY = 0.95
HARMONIC = 0.28209479177387814
"""The spherical harmonic of degree 0: a colour is `HARMONIC * f_dc + 0.5`."""
UPRIGHT = np.diag([1.0, -1, -1, 1])
"""From OpenCV axes to glTF's: y up, and the view along -z."""
FLOAT, SHORT, WORD = 5126, 5123, 5125
"""glTF's numbers of types: float32, uint16, uint32."""


def write_ply(
    path: Path, points: np.ndarray, *, colours: np.ndarray, normals: np.ndarray | None = None
) -> None:
    """A binary PLY of points (n, 3), colours uint8 (n, 3) and unit normals (n, 3), all but the colours as
    float32."""
    columns: dict[str, np.ndarray] = dict(zip("xyz", points.T.astype("<f4"), strict=True))
    if normals is not None:
        columns |= dict(zip(("nx", "ny", "nz"), normals.T.astype("<f4"), strict=True))
    columns |= dict(zip(("red", "green", "blue"), colours.T.astype("u1"), strict=True))
    _write_vertices(path, columns)


def write_gaussians(
    path: Path, points: np.ndarray, *, colours: np.ndarray, normals: np.ndarray, footprints: np.ndarray
) -> None:
    """Points as flat Gaussians, in the PLY of 3D Gaussian Splatting (arXiv 2308.04079), without optimisation.

    `points` (n, 3), `colours` uint8 (n, 3); `normals` (n, 3), 0 where unknown, are the thin axes;
    `footprints` (n,) are the world sizes of the pixels that saw the points (depth / focal length). Scales are
    logarithms, opacities logits, rotations quaternions with the scalar first.
    """
    known = np.linalg.norm(normals, axis=1) > 0
    size = GAUSSIAN_WIDTH * np.maximum(footprints, 1e-9)
    scales = np.repeat(np.log(size)[:, None], 3, axis=1)
    scales[known, 2] += np.log(GAUSSIAN_THICKNESS)
    logit = np.full(len(points), np.log(OPACITY / (1 - OPACITY)))
    columns: dict[str, np.ndarray] = dict(zip("xyz", points.T, strict=True))
    columns |= dict(zip(("nx", "ny", "nz"), normals.T, strict=True))
    columns |= {f"f_dc_{k}": (colours[:, k] / 255 - 0.5) / HARMONIC for k in range(3)}
    columns |= {"opacity": logit, **{f"scale_{k}": scales[:, k] for k in range(3)}}
    columns |= {f"rot_{k}": row for k, row in enumerate(_towards(normals).T)}
    _write_vertices(path, {name: column.astype("<f4") for name, column in columns.items()})


def write_glb(
    path: Path,
    points: np.ndarray,
    *,
    colours: np.ndarray,
    triangles: np.ndarray | None = None,
    seen_by: np.ndarray | None = None,
) -> None:
    """A GLB (glTF 2.0) of coloured points (n, 3), or of triangles (m, 3) of their indices, that is not lit.

    Colours uint8 (n, 3) are sRGB and stored linear, as glTF wants them. `seen_by` (4, 4) is the camera for
    which it is upright (default: one in the origin).
    """
    placed = points.astype("<f4")
    paint = np.full((len(points), 4), 65535, "<u2")
    paint[:, :3] = np.round(65535 * _linear(colours))
    parts: list[tuple[np.ndarray, int, str, int]] = [
        (placed, FLOAT, "VEC3", 34962),
        (paint, SHORT, "VEC4", 34962),
    ]
    if triangles is not None:
        parts.append((triangles.reshape(-1).astype("<u4"), WORD, "SCALAR", 34963))
    primitive: dict[str, Any] = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "material": 0}
    primitive |= {"mode": 0} if triangles is None else {"mode": 4, "indices": 2}
    upright = UPRIGHT @ (np.eye(4) if seen_by is None else invert(np.asarray(seen_by, np.float64)))
    views, accessors, start = [], [], 0
    for array, kind, shape, target in parts:
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target})
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": kind, "count": len(array), "type": shape}
        )
        start += array.nbytes
    accessors[0] |= {"min": placed.min(0).tolist(), "max": placed.max(0).tolist()}
    accessors[1]["normalized"] = True
    unlit = {"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}
    content = {
        "asset": {"version": "2.0", "generator": "dreamwalk"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "matrix": upright.T.reshape(-1).tolist()}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [unlit | {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}],
        "buffers": [{"byteLength": start}],
        "bufferViews": views,
        "accessors": accessors,
    }
    _write_chunks(path, json.dumps(content).encode(), [part[0] for part in parts])


def depth_surface(
    depth: np.ndarray, *, intrinsics: np.ndarray, world_from_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World points (n, 3) of pixels of a depth image (h, w), triangles (m, 3) of their indices between
    neighbours, which face the camera and cross no edge of the depth, and which pixels the points are, (n,).
    """
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    number = np.arange(depth.size).reshape(depth.shape)
    corners = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    left_up, right_up, left_down, right_down = (corner.reshape(-1) for corner in corners)
    halves = [(left_up, left_down, right_up), (right_up, left_down, right_down)]
    triangles = np.concatenate([np.stack(half, axis=1) for half in halves])
    triangles = triangles[depth.reshape(-1)[triangles].min(1) > 0]
    nearness, edges = 1 / depth.reshape(-1)[triangles], depth_discontinuities(depth).reshape(-1)[triangles]
    apart = np.abs(nearness - np.roll(nearness, 1, axis=1)) > EDGE * nearness
    crossing = apart & edges & np.roll(edges, 1, axis=1)
    pixels, kept = np.unique(triangles[~crossing.any(1)], return_inverse=True)
    points = unproject(depth, intrinsics=intrinsics, world_from_camera=world_from_camera).reshape(-1, 3)
    return points[pixels], kept.reshape(-1, 3), pixels


def _write_vertices(path: Path, columns: dict[str, np.ndarray]) -> None:
    """A binary PLY with these columns of equal length."""
    count = len(next(iter(columns.values())))
    rows = np.empty(count, dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    kinds = {4: "float", 1: "uchar"}
    fields = "".join(f"property {kinds[column.dtype.itemsize]} {name}\n" for name, column in columns.items())
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{fields}end_header\n"
    with writing(path), atomic(path) as partial, partial.open("wb") as file:
        file.write(head.encode())
        file.write(rows.data)


def _write_chunks(path: Path, text: bytes, arrays: Sequence[np.ndarray]) -> None:
    """The two chunks of a GLB; arrays have whole words of 4 bytes."""
    text += b" " * (-len(text) % 4)
    size = sum(array.nbytes for array in arrays)
    if (whole := 28 + len(text) + size) >= 1 << 32:
        raise UserError(f"'{path}' would be larger than the 4 GiB of a GLB: write fewer points")
    with writing(path), atomic(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, whole))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", size, b"BIN\0"))
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)


def _linear(colours: np.ndarray) -> np.ndarray:
    """sRGB uint8 as linear light in [0, 1] (IEC 61966-2-1)."""
    share = np.arange(256) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)[colours]


def _towards(normals: np.ndarray) -> np.ndarray:
    """Quaternions (n, 4), scalar first, that turn the z axis to these directions (n, 3); 1 0 0 0 for none."""
    x, y, z = normals.T.astype(np.float64)
    back = z < -1 + 1e-6  # half a turn about x
    quaternions = np.stack(
        [np.where(back, 0, 1 + z), np.where(back, 1, -y), np.where(back, 0, x), 0 * x], axis=1
    )
    return quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
