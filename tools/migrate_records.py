"""Renames what older versions wrote, so that this version reads it.

python tools/migrate_records.py results runs

Below each folder: `ledger.json` becomes `ablation.json`. No figure changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

RENAMED = {
    '"kind": "ledger"': '"kind": "ablation"',
    '"command": "paripassu ledger ': '"command": "paripassu ablate ',
    '"apart": [': '"framework_effects": [',
}


def migrate_ablation(old: Path) -> Path:
    """Write `ablation.json` beside a `ledger.json`, and delete that."""
    text = old.read_text()
    for before, after in RENAMED.items():
        text = text.replace(before, after)
    new = old.with_name("ablation.json")
    new.write_text(text)
    old.unlink()
    return new


def main() -> None:
    """Migrate every record below the folders that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        for old in sorted(folder.rglob("ledger.json")):
            print(f"wrote {migrate_ablation(old)}")


if __name__ == "__main__":
    main()
