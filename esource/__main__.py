"""``python -m esource``: the command line."""

from esource.cli import main

if __name__ == "__main__":
    main()
