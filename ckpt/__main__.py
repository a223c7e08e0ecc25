"""`python -m ckpt` is the command line."""

from ckpt.cli.main import main

if __name__ == "__main__":
    main()
