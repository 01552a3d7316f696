"""``python -m idm``: the ``idm`` command."""

from idm.apps.cli.main import main

if __name__ == "__main__":
    main()
