"""`python -m vitreous` is the `vitreous` program."""

from vitreous.app.cli import main

if __name__ == "__main__":
    main()
