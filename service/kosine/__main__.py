"""`python -m kosine` is `kosine`."""

from kosine.cli import main

if __name__ == "__main__":
    main(prog_name="kosine")
