"""The command line, by ``python -m cbtools``."""

from cbtools.cli import main

if __name__ == "__main__":
    main()
