"""The one exception that the command line and the page turn into a sentence."""


class UserError(ValueError):
    """Something that the person in front can mend: one sentence that names what is wrong and what mends it.

    Every other exception is a fault of the program and keeps its traceback. What a person wrote (JSON, CSV,
    a schema) is parsed where it is read, and the error names the file and the line.
    """
