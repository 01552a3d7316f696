"""What the subcommands do, a module each. Nothing is imported here: ``idm.apps.cli.main`` imports the one it runs."""
