"""Reads Statehouse snapshot files (docs/snapshot-format.md) with NumPy: python snapshot.py FILE"""

import ctypes
import json
import math
import struct
import sys
from typing import Any

try:
    import numpy as np
except ImportError:
    if __name__ != "__main__":
        raise
    sys.exit("snapshot.py needs the Python package numpy: pip install numpy")

try:
    from xxhash import xxh3_64_hexdigest
except ImportError:  # then no checksum is checked, and read() says so
    xxh3_64_hexdigest = None

DTYPES = {"I32": np.dtype("<i4"), "F32": np.dtype("<f4"), "BF16": np.dtype("<u2"), "I8": np.dtype("i1")}


def read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the footer and the sections by name; ValueError if the file is damaged, as far as can be told without xxhash."""
    if xxh3_64_hexdigest is None:
        print(f"{path}: checksums are not checked, since the Python package xxhash is missing", file=sys.stderr)
    with open(path, "rb") as file:
        data = file.read()
    if data[:8] != b"SHSNAP01" or data[-8:] != b"SHSNAPND":
        raise ValueError(f"{path} is no snapshot, or was cut off")
    size, checksum = struct.unpack("<QQ", data[-24:-8])
    footer_bytes = data[-24 - size:-24]
    check(digest(footer_bytes) in (None, f"{checksum:016x}"), "the footer's checksum")
    footer = json.loads(footer_bytes)
    return footer, {entry["name"]: section(data, entry) for entry in footer["sections"]}


def section(data: bytes, entry: dict[str, Any]) -> np.ndarray:
    stored, dtype = data[entry["offset"]:entry["offset"] + entry["bytes"]], DTYPES[entry["dtype"]]
    check(digest(stored) in (None, entry["xxh3"]), f"the checksum of {entry['name']}")
    if entry.get("codec") == "zstd":
        zstd, buffer = ctypes.CDLL("libzstd.so.1"), ctypes.create_string_buffer(entry["count"] * dtype.itemsize)
        zstd.ZSTD_decompress.restype = ctypes.c_size_t
        sizes = ctypes.c_size_t(len(buffer)), ctypes.c_size_t(len(stored))
        check(zstd.ZSTD_decompress(buffer, sizes[0], stored, sizes[1]) == len(buffer), f"the size of {entry['name']}")
        stored = buffer.raw
    return np.frombuffer(stored, dtype, entry["count"])


def digest(stored: bytes) -> str | None:
    return xxh3_64_hexdigest(stored) if xxh3_64_hexdigest else None


def check(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} does not fit")


def heads(footer: dict[str, Any], sections: dict[str, np.ndarray], layer: int) -> list[dict[str, np.ndarray]]:
    """The key/value heads of a layer: S [D, d] and z [D] (if anything is folded), K and V [n, d], L [n] (float64)."""
    identity, name = footer["identity"], f"layer.{layer}"
    d, num_heads = identity["head_dim"], identity["heads_kv"]
    size = math.comb(d + identity["degree"] - 1, identity["degree"])
    numbers, result, at = sections[name], [], {"S": 0, "z": 0}
    if numbers.dtype == np.uint16:  # bf16: the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    elif numbers.dtype == np.int8:  # one scale for each row of d
        numbers = (numbers.reshape(-1, d) * sections[name + ".scales"][:, None]).reshape(-1)
    exact = sections.get(name + ".exact")  # with loss z and L lie apart
    for _, folded, rows in footer["extents"][layer * num_heads:(layer + 1) * num_heads]:
        shapes = {"S": (size, d), "z": (size,)} if folded else {}
        head = {}
        for key, shape in (shapes | {"K": (rows, d), "V": (rows, d), "L": (rows, 2)}).items():
            kind, count = "z" if key in "zL" and exact is not None else "S", math.prod(shape)
            head[key] = (exact if kind == "z" else numbers)[at[kind]:at[kind] + count].reshape(shape)
            at[kind] += count
        head["L"] = head["L"].astype(np.float64).sum(axis=1)
        result.append(head)
    return result


if __name__ == "__main__":
    info, parts = read(sys.argv[1])
    print(f"position {info['position']}, {info['identity']['num_layers']} layers, made on {info['numeric']['device']}, "
          f"state as {info.get('encoding', {}).get('state', 'f32')}")
    for index in range(info["identity"]["num_layers"]):
        for head in heads(info, parts, index):
            print(index, {name: (list(array.shape), float(np.abs(array).sum())) for name, array in head.items()})
