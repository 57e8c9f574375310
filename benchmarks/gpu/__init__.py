"""``make gpu``: what only a GPU can tell, in one script of at most eight minutes."""
