"""The verbs of the command line: one small function each over a library call, which loads its room when called."""
