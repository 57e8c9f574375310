"""Tables of the leaderboard."""


def write(folder, budget):
    pass
