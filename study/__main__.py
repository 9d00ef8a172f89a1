"""``python -m study``: the command ``mtl-study`` where it is not on the path."""

from study.cli import entry_point

if __name__ == "__main__":
    entry_point()
