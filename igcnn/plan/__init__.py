"""Plans: a network as a list of calls on memory that is laid out once."""
