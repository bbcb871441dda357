"""``python -m secateurs`` is the command line."""

from secateurs.cli import main

if __name__ == "__main__":
    main()
