"""How the equation is played: roles and players, a round, the loop, what goes wrong, how steps are executed."""
