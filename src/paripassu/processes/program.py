"""Runs a Python file as a program of its own that ends when its parent does.

    python program.py FILE ARGUMENT ...

It imports nothing of ours: the file must do without, as where its user runs it.
"""

import os
import runpy
import sys
import threading


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    os.dup2(2, 1)  # nobody reads standard output
    if os.name != "nt":  # where a read that waits may block others
        threading.Thread(target=_end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
