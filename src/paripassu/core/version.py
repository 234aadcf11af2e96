"""The version of this package, and where it comes from."""

__version__ = "0.1.0"

# The one place of the address: `tools/generate_docs.py` and `paripassu notebooks` write
# it wherever else it stands. Names in .example are nobody's (RFC 2606).
REPOSITORY = "https://paripassu.example/paripassu"


def from_repository(*extras: str) -> str:
    """What pip installs from the repository: "paripassu[onnx] @ git+https://..."."""
    wanted = f"[{','.join(extras)}]" if extras else ""
    return f"paripassu{wanted} @ git+{REPOSITORY}"
