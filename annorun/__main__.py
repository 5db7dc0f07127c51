"""`python -m annorun`."""

from annorun.cli import main

if __name__ == "__main__":
    main()
