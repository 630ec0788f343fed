"""Reads Statehouse snapshot files (docs/snapshot-format.md) with NumPy: python snapshot.py FILE"""

import json
import math
import struct
import sys
from typing import Any

import numpy as np

try:
    from xxhash import xxh3_64_hexdigest
except ImportError:  # then checksums are not checked
    xxh3_64_hexdigest = None

DTYPES = {"I32": np.dtype("<i4"), "F32": np.dtype("<f4")}


def read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the footer and the sections by name; ValueError if the file is damaged."""
    data = open(path, "rb").read()
    if data[:8] != b"SHSNAP01" or data[-8:] != b"SHSNAPND":
        raise ValueError(f"{path} is no snapshot, or was cut off")
    size, checksum = struct.unpack("<QQ", data[-24:-8])
    footer_bytes = data[-24 - size:-24]
    check(f"{checksum:016x}", footer_bytes, "footer")
    footer = json.loads(footer_bytes)
    sections = {}
    for entry in footer["sections"]:
        stored = data[entry["offset"]:entry["offset"] + entry["bytes"]]
        check(entry["xxh3"], stored, entry["name"])
        sections[entry["name"]] = np.frombuffer(stored, DTYPES[entry["dtype"]], entry["count"])
    return footer, sections


def check(checksum: str, stored: bytes, name: str) -> None:
    if xxh3_64_hexdigest and xxh3_64_hexdigest(stored) != checksum:
        raise ValueError(f"the checksum of {name} does not fit")


def heads(footer: dict[str, Any], sections: dict[str, np.ndarray], layer: int) -> list[dict[str, np.ndarray]]:
    """The key/value heads of a layer: S [D, d] and z [D] (if anything is folded), K and V [n, d], L [n] (float64)."""
    identity = footer["identity"]
    d, num_heads = identity["head_dim"], identity["heads_kv"]
    size = math.comb(d + identity["degree"] - 1, identity["degree"])
    numbers, at, result = sections[f"layer.{layer}"], 0, []
    for _, folded, rows in footer["extents"][layer * num_heads:(layer + 1) * num_heads]:
        shapes = {"S": (size, d), "z": (size,)} if folded else {}
        shapes |= {"K": (rows, d), "V": (rows, d), "L": (rows, 2)}
        head = {}
        for name, shape in shapes.items():
            count = math.prod(shape)
            head[name] = numbers[at:at + count].reshape(shape)
            at += count
        head["L"] = head["L"].astype(np.float64).sum(axis=1)
        result.append(head)
    return result


if __name__ == "__main__":
    info, parts = read(sys.argv[1])
    print(f"position {info['position']}, {info['identity']['num_layers']} layers, made on {info['numeric']['device']}")
    for index in range(info["identity"]["num_layers"]):
        for head in heads(info, parts, index):
            print(index, {name: (list(array.shape), float(np.abs(array).sum())) for name, array in head.items()})
