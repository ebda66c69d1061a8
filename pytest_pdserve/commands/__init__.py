"""The `pdserve` command: one module per subcommand."""
