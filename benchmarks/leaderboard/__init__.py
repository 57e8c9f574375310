"""A leaderboard: divergences and constraints crossed, and whole systems, each run at equal processor time."""
