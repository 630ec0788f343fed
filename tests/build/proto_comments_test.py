"""Fails unless every message field, enum value but the first, and method of the protos has a comment above it.

Usage: proto_comments_test.py PROTO_DIRECTORY
"""
import pathlib
import re
import sys

MEMBER = re.compile(r"\s+(?:(?:optional |repeated )?[\w.<>, ]+ \w+ = \d+;|rpc \w+\()")
PLAIN_ENUM_VALUES = ("_UNSPECIFIED", "_CANCELLED", "_ERROR")  # say all in their names


def undocumented(path):
    above = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if MEMBER.match(line) and not above.strip().startswith("//"):
            if not line.split("=")[0].strip().endswith(PLAIN_ENUM_VALUES):
                yield f"{path.name}:{number}: {line.strip()}"
        above = line


def main():
    files = sorted(pathlib.Path(sys.argv[1], "statehouse").rglob("*.proto"))  # the others are copies of public ones
    missing = [line for path in files for line in undocumented(path)]
    if not files:
        missing = [f"no .proto below {sys.argv[1]}"]
    print("\n".join(missing) or f"{len(files)} files: every member has a comment")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
