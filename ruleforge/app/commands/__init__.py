"""One file for each group of commands; each lists its own under `COMMANDS`."""
