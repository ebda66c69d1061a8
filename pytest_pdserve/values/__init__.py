"""What things are: frozen values and their parsing. No I/O, no clock."""
