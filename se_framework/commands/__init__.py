"""What the commands do: ``se-train`` (entered through ``__main__``), ``se-sample`` and ``se-eval``."""
