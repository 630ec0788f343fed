"""Fails unless every message field, enum value and method of the protos has a comment above it.

Usage: proto_comments_test.py PROTO_DIRECTORY
"""
import pathlib
import re
import sys

MEMBER = re.compile(r"\s+(?:(?:(?:optional |repeated )?[\w.<>, ]+ )?\w+ = \d+(?: \[.*)?;|rpc \w+\()")
PLAIN_ENUM_VALUES = ("_UNSPECIFIED", "_CANCELLED", "_ERROR")  # say all in their names


def undocumented(name, text):
    above = ""
    for number, line in enumerate(text.splitlines(), 1):
        if MEMBER.match(line) and not above.strip().startswith("//"):
            if not line.split("=")[0].strip().endswith(PLAIN_ENUM_VALUES):
                yield f"{name}:{number}: {line.strip()}"
        above = line


def check_the_check():
    """Each kind of member is found where it has no comment, and nowhere else."""
    members = ("  int32 a = 1;", "  optional string b = 2;", "  repeated pkg.Type c = 3;", "  map<string, int64> d = 4;",
               "  bool e = 5 [deprecated = true];", "  FIRST = 0;", "  SECOND = 10 [deprecated = true];", "  rpc Do(A) returns (B);")
    for line in members:
        assert len(list(undocumented("sample", line))) == 1, line
        assert not list(undocumented("sample", f"  // Why.\n{line}")), line
    for line in ('syntax = "proto3";', "  oneof kind {", "  reserved 3;", "message M {", "  KIND_UNSPECIFIED = 0;"):
        assert not list(undocumented("sample", line)), line


def main():
    files = sorted(pathlib.Path(sys.argv[1], "statehouse").rglob("*.proto"))  # the others are copies of public ones
    check_the_check()
    missing = [line for path in files for line in undocumented(path.name, path.read_text(encoding="utf-8"))]
    if not files:
        missing = [f"no .proto below {sys.argv[1]}"]
    print("\n".join(missing) or f"{len(files)} files: every member has a comment")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
