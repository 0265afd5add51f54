"""`python -m ruleforge` is the command line."""

from ruleforge.app.cli import main

if __name__ == "__main__":
    main()
