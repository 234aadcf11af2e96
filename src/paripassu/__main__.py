"""`python -m paripassu` is the command `paripassu`."""

from paripassu.cli import main

if __name__ == "__main__":
    main()
