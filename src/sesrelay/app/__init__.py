"""The composition root: Config → wired rooms, start and drain order, signals. The only room that knows every other."""
