"""`python -m engine <verb>` is `maskloop <verb>`."""

from engine.cli import main

main()
