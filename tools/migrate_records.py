"""Renames what older versions wrote, so that this version reads it.

python tools/migrate_records.py results runs

Below each folder, `ledger.json` becomes `ablation.json`, and the commands that records
quote become those that do the same today. No figure changes.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

RENAMED = {
    '"kind": "ledger"': '"kind": "ablation"',
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


def migrate_command(typed: str) -> str:
    """The same command in today's words.

    >>> migrate_command("paripassu bench --to-accuracy 0.99")
    'paripassu race --to-accuracy 0.99'
    """
    if typed.startswith("paripassu bench") and "--to-accuracy" in typed:
        typed = typed.replace("paripassu bench", "paripassu race")
    if typed.startswith("paripassu verify"):
        typed = re.sub(r"(.*) --json (\S+)(.*)", r"\1\3 --json > \2", typed)
    return typed.replace("paripassu ledger", "paripassu ablate")


def migrate_commands(path: Path) -> bool:
    """Rewrite the commands in a record; whether one has changed."""
    text = path.read_text()
    new = re.sub(
        r'("command": ")(paripassu [^"\\]*)"',
        lambda found: found[1] + migrate_command(found[2]) + '"',
        text,
    )
    if new != text:
        path.write_text(new)
    return new != text


def main() -> None:
    """Migrate every record below the folders that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        for old in sorted(folder.rglob("ledger.json")):
            print(f"wrote {migrate_ablation(old)}")
        for path in sorted(folder.rglob("*.json")):
            if migrate_commands(path):
                print(f"wrote {path}")


if __name__ == "__main__":
    main()
