"""A self-contained page of one run or of many, written to a file or served live."""
