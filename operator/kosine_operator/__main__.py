"""`python -m kosine_operator`."""

from __future__ import annotations

from kosine_operator.cli import main

main(prog_name="kosine-operator")
