"""Large trees: `ls -l`, `find`, and how soon a mount is ready."""


def measure(args, origin, run):
    raise NotImplementedError
