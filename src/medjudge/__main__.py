"""`python -m medjudge`: the same door as the `medjudge` command."""

from medjudge.cli import main

if __name__ == "__main__":
    main()
