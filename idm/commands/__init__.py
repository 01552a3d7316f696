"""What the subcommands do, a module each. Nothing is imported here: ``idm.cli`` imports the one it runs."""
