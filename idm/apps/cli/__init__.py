"""The subcommands, a module each. Nothing is imported here: ``idm.apps.cli.main`` imports the one it runs."""
